/* SPDX-License-Identifier: MIT */
/*
 * hot.c - memory that changes in every epoch is not protected
 *
 * A write to a protected page costs a fault, about as much as copying three pages. Where
 * nearly everything changes from epoch to epoch, as in the grid of a stencil, not protecting
 * and always copying is cheaper; the keeper's hashes drop what has not changed after all. So
 * this is a guess about cost, never about content.
 *
 * The heap's extents are looked at in blocks of 2 MiB. A block that was found at least half
 * changed in HOT epochs running is hot: left unprotected. After RETRY epochs it is protected
 * again, to see.
 *
 * Invariant: in a hot block every page that may have changed lacks the protection bit, because
 * nothing has set it since it was last clear; so a scan for written pages finds it (T1).
 */
#include "agent_internal.h"

#define BLOCK (UINT64_C(2) << 20)
#define HOT   3
#define RETRY 64
#define HALF  (BLOCK / PH_PAGE / 2)

struct block {
    uint16_t changed; /* pages found changed by this epoch */
    uint8_t heat;     /* epochs running in which that was half or more */
    uint8_t age;      /* epochs since it is hot */
};
_Static_assert((PH_HEAP_END - PH_HEAP_EXTENTS) / BLOCK * sizeof(struct block) <= 32u << 20,
               "the table fits in its area");

static struct block *block_of(uint64_t addr)
{
    return (struct block *)ph_agent.areas.hot.base + (addr - PH_HEAP_EXTENTS) / BLOCK;
}

bool ph_hot_run(uint64_t at, uint64_t end, uint64_t *run_end)
{
    *run_end = end;
    if (at < PH_HEAP_EXTENTS || at >= PH_HEAP_END)
        return false;
    bool hot = block_of(at)->heat >= HOT;
    uint64_t next = (at / BLOCK + 1) * BLOCK;
    while (next < end && (block_of(next)->heat >= HOT) == hot)
        next += BLOCK;
    *run_end = next < end ? next : end;
    return hot;
}

void ph_hot_changed(uint64_t start, uint64_t end)
{
    if (start < PH_HEAP_EXTENTS || start >= PH_HEAP_END)
        return;
    while (start < end) {
        uint64_t next = (start / BLOCK + 1) * BLOCK, stop = next < end ? next : end;
        struct block *b = block_of(start);
        b->changed = (uint16_t)(b->changed + (stop - start) / PH_PAGE);
        start = stop;
    }
}

void ph_hot_settle(uint64_t start, uint64_t end)
{
    if (start < PH_HEAP_EXTENTS || start >= PH_HEAP_END)
        return;
    for (; start < end; start = (start / BLOCK + 1) * BLOCK) {
        struct block *b = block_of(start);
        if (b->heat >= HOT) {
            if (++b->age >= RETRY)
                *b = (struct block){0, 0, 0};
        } else {
            b->heat = b->changed >= HALF ? (uint8_t)(b->heat + 1) : 0;
            b->age = 0;
        }
        b->changed = 0;
    }
}
