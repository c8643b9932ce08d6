/* SPDX-License-Identifier: MIT */
/*
 * heap_space.h - where the heap's tables and blocks lie, and how much of that is memory
 *
 * The range is cut into parts, each used from its bottom up. Three ways to have them:
 *
 *   whole     all addresses are memory from the start, none of it charged before it is used.
 *             Nothing is ever to be done again.
 *   reserved  where all that is writable is charged (vm.overcommit_memory=2, ulimit -d): the
 *             range is mapped for reading, and what is used is made memory piece by piece.
 *   pieces    where addresses are limited (ulimit -v): only what is used is mapped.
 *
 * Which it is, and how far each part is memory, is said at the first page of the range: so it
 * comes back with the heap, and the restorer can find the range another way than it was.
 *
 * Invariants
 *  A1  [ph_part_start[i], ph_space->end[i]) is writable memory, zero where it was never
 *      written.
 *  A2  end[i] changes under the lock of its part (heap_internal.h) and only grows.
 *  A3  A thread that is stopped has mapped at most one piece beyond end[i], and says so when it
 *      goes on. Never if the range is whole.
 *  A4  A thread that has found end[i] to be enough, but has not noted yet what it uses, has
 *      said how much that is in ph_space_wanted[i].
 */
#ifndef PH_HEAP_SPACE_H
#define PH_HEAP_SPACE_H

#include "layout.h"

#include <stdbool.h>
#include <stdint.h>

#define PH_LOCAL_TABLE  (PH_HEAP_BASE + PH_PAGE)
#define PH_SLAB_TABLE   (PH_HEAP_BASE + (UINT64_C(1) << (37 - PH_HEAP_SHRINK)))
#define PH_EXTENT_TABLE (PH_HEAP_BASE + (UINT64_C(1) << (38 - PH_HEAP_SHRINK)))
#define PH_PAGE_MAP     (PH_HEAP_BASE + (UINT64_C(1) << (39 - PH_HEAP_SHRINK)))
#define PH_SLABS        (PH_HEAP_BASE + (UINT64_C(1) << (40 - PH_HEAP_SHRINK)))

enum ph_part {
    PH_PART_LOCALS, /* with the page that says all this */
    PH_PART_SLAB_TABLE,
    PH_PART_EXTENT_TABLE,
    PH_PART_PAGE_MAP,
    PH_PART_SLABS,
    PH_PART_EXTENTS,
    PH_PARTS
};

/** Where the parts begin; each ends where the next one does. */
static const uint64_t ph_part_start[PH_PARTS + 1] = {
    PH_HEAP_BASE, PH_SLAB_TABLE,   PH_EXTENT_TABLE, PH_PAGE_MAP,
    PH_SLABS,     PH_HEAP_EXTENTS, PH_HEAP_END,
};

enum ph_space_how { PH_SPACE_WHOLE = 1, PH_SPACE_RESERVED, PH_SPACE_PIECES };

struct ph_space {
    uint64_t end[PH_PARTS];
    uint32_t how; /* enum ph_space_how */
    uint32_t unused;
};

#define ph_space ((struct ph_space *)PH_HEAP_BASE)

#pragma GCC visibility push(hidden)

/** Take the range. @return 0; PH_EMAP: somebody has mapped in it; PH_ENOMEM. */
int ph_space_open(void);
void ph_space_close(void);

/** Have @p part be memory up to @p end at least. @return false: no memory. */
bool ph_space_grow(enum ph_part part, uint64_t end);

/** What ph_space_reach was last asked for (A4). */
extern uint64_t ph_space_wanted[PH_PARTS];

/** The same, at once where it is. @pre the lock of @p part is held. */
static inline bool ph_space_reach(enum ph_part part, uint64_t end)
{
    ph_space_wanted[part] = end;
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* the thread may be stopped from here on */
    return __builtin_expect(end <= ph_space->end[part], 1) || ph_space_grow(part, end);
}

#pragma GCC visibility pop

#endif
