/* SPDX-License-Identifier: MIT */
/*
 * layout.h - where pyheap's own ranges lie in the program's address space
 *
 * All of them are constants: a pointer into the heap must mean the same thing after
 * recovery, and the restorer must know without asking what it may not unmap. Address
 * randomisation never places anything between 1 TiB and 42.6 TiB on x86-64 with 47-bit
 * addresses: position-dependent programs lie below 4 GiB, PIE at 85 TiB and above, mmap and
 * the stack below 128 TiB, in the legacy layout (setarch -L, vm.legacy_va_layout) mmap from a
 * third of that on.
 *
 *   0x0100_0000_0000  restorer: text, data, plan     (exists while a program is restored)
 *   0x0180_0000_0000  vdso of this kernel, where it differs from the one the program knows
 *   0x1f00_0000_0000  agent: control page, scratch, staging ring     (never captured)
 *   0x2000_0000_0000  heap, first quarter: slabs and side tables
 *   0x2400_0000_0000  heap, the rest: extents (huge-page friendly)
 *   0x2a00_0000_0000  end
 */
#ifndef PH_LAYOUT_H
#define PH_LAYOUT_H

#include <stdint.h>

#define PH_PAGE_SHIFT    12
#define PH_PAGE          ((uint64_t)1 << PH_PAGE_SHIFT) /* bytes */

#define PH_RESTORER_BASE UINT64_C(0x010000000000)
#define PH_RESTORER_END  UINT64_C(0x018000000000)
#define PH_VDSO_BASE     UINT64_C(0x018000000000)
#define PH_VDSO_END      UINT64_C(0x018000100000)

#define PH_AGENT_BASE    UINT64_C(0x1f0000000000)
#define PH_AGENT_END     UINT64_C(0x200000000000)
#define PH_CONTROL_BASE  PH_AGENT_BASE /* shared with the keeper */
#define PH_CONTROL_SIZE  UINT64_C(0x10000)
#define PH_SCRATCH_BASE  UINT64_C(0x1f0040000000) /* private to the program */
#define PH_SCRATCH_SIZE  UINT64_C(0x000040000000)
/* At the start of scratch. Where it cannot be had whole (vm.overcommit_memory=2, ulimit -v)
 * only this page is mapped, and each area maps what it needs when it needs it. */
struct ph_scratch {
    uint32_t whole;
    uint32_t unused;
    uint64_t mapped[32]; /* bytes of each area; not if it is whole */
};
#define PH_SCRATCH      ((struct ph_scratch *)PH_SCRATCH_BASE)
#define PH_SCRATCH_HEAD UINT64_C(0x100000)
#define PH_RING_BASE    UINT64_C(0x1f0400000000) /* shared with the keeper */

/* The thread sanitizer has this range for itself: its test puts a smaller heap elsewhere. */
#ifndef PH_HEAP_BASE
#define PH_HEAP_BASE   UINT64_C(0x200000000000)
#define PH_HEAP_SHRINK 0
#endif
#define PH_HEAP_EXTENTS (PH_HEAP_BASE + (UINT64_C(0x040000000000) >> PH_HEAP_SHRINK))
#define PH_HEAP_END     (PH_HEAP_BASE + (UINT64_C(0x0a0000000000) >> PH_HEAP_SHRINK))

#endif
