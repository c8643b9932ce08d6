/* SPDX-License-Identifier: MIT */
/*
 * heap_space.c - the heap's addresses become memory; see heap_space.h
 *
 * What is charged, from the kernel's mm/: accountable_mapping says private and writable, unless
 * MAP_NORESERVE, which does not count with vm.overcommit_memory=2; is_data_mapping the same for
 * RLIMIT_DATA; RLIMIT_AS counts every address. System calls are made without libc, so that
 * errno stays what it was when all is well.
 */
#include "heap_space.h"

#include "error.h"
#include "syscall.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define STEP_SPACE (UINT64_C(2) << 20) /* a huge page */
#define STEP_TABLE (UINT64_C(64) << 10)

uint64_t ph_space_wanted[PH_PARTS];

static long map(uint64_t start, uint64_t end, int prot, int fixed)
{
    long r = ph_syscall(SYS_mmap, start, end - start, prot,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    if (r >= 0 && (uint64_t)r != start) { /* a kernel before 4.17 takes it as a hint */
        ph_syscall(SYS_munmap, r, end - start);
        return -EEXIST;
    }
    return r < 0 ? r : 0;
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/** Two mappings: only the second wants huge pages. */
static long map_range(int prot)
{
    long r = map(PH_HEAP_BASE, PH_HEAP_EXTENTS, prot, MAP_FIXED_NOREPLACE);
    if (r)
        return r;
    r = map(PH_HEAP_EXTENTS, PH_HEAP_END, prot, MAP_FIXED_NOREPLACE);
    if (r)
        ph_syscall(SYS_munmap, PH_HEAP_BASE, PH_HEAP_EXTENTS - PH_HEAP_BASE);
    return r;
}

/** The first pages of the tables, to be found by ph_space_reach. */
static long begin(int fixed, enum ph_space_how how)
{
    long r = map(PH_HEAP_BASE, PH_HEAP_BASE + STEP_TABLE, PROT_READ | PROT_WRITE, fixed);
    if (r)
        return r;
    for (int i = 0; i < PH_PARTS; i++)
        ph_space->end[i] = ph_part_start[i];
    ph_space->end[PH_PART_LOCALS] += STEP_TABLE;
    ph_space->how = how;
    return 0;
}

int ph_space_open(void)
{
    long r = map_range(PROT_READ | PROT_WRITE);
    if (r == 0) {
        for (int i = 0; i < PH_PARTS; i++)
            ph_space->end[i] = ph_part_start[i + 1];
        ph_space->how = PH_SPACE_WHOLE;
        ph_syscall(SYS_madvise, PH_HEAP_EXTENTS, PH_HEAP_END - PH_HEAP_EXTENTS, MADV_HUGEPAGE);
        return 0;
    }
    if (r == -ENOMEM) {
        r = map_range(PROT_READ);
        r = r == 0         ? begin(MAP_FIXED, PH_SPACE_RESERVED)
            : r == -ENOMEM ? begin(MAP_FIXED_NOREPLACE, PH_SPACE_PIECES)
                           : r;
    }
    return r == 0 ? 0 : r == -ENOMEM ? PH_ENOMEM : PH_EMAP;
}

void ph_space_close(void)
{
    ph_syscall(SYS_munmap, PH_HEAP_BASE, PH_HEAP_END - PH_HEAP_BASE);
}

bool ph_space_grow(enum ph_part part, uint64_t end)
{
    uint64_t limit = ph_part_start[part + 1], now = ph_space->end[part];
    uint64_t step = part < PH_PART_SLABS ? STEP_TABLE : STEP_SPACE;
    int fixed = ph_space->how == PH_SPACE_RESERVED ? MAP_FIXED : MAP_FIXED_NOREPLACE;
    if (end > limit)
        return false;
    /* An eighth more than there is, so that growing is seldom; if need be only what is asked
     * for. Neighbours are one mapping to the kernel. */
    uint64_t more = round_up((now - ph_part_start[part]) / 8, step);
    uint64_t to = round_up(end > now + more ? end : now + more, step);
    to = to < limit ? to : limit;
    if (map(now, to, PROT_READ | PROT_WRITE, fixed) != 0) {
        to = round_up(end, PH_PAGE);
        if (map(now, to, PROT_READ | PROT_WRITE, fixed) != 0)
            return false;
    }
    if (part == PH_PART_EXTENTS)
        ph_syscall(SYS_madvise, now, to - now, MADV_HUGEPAGE);
    ph_space->end[part] = to;
    return true;
}
