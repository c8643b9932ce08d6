/* SPDX-License-Identifier: MIT */
/*
 * live.c - which pages of the heap are live, without looking at all of it
 *
 * To look at every slab took 70 ns for each, however little had changed.
 *
 *   L1  What of slab space is live is decided by the slabs' table alone (heap.h). Where no
 *       scan has found that changed since the epoch before, what was live then is live now.
 *   L2  A thread may have stopped between writing the record of a new slab and counting it:
 *       beyond where slab space ended at the epoch before, everything is looked at.
 *   L3  That holds only if this epoch's scan reports all changes since the epoch before: it is
 *       not a full one, and nothing was copied ahead, which takes changes from the scan.
 */
#include "pages.h"

#define MOST 4096u /* spans to look at; beyond that, one for all that is left */

static struct {
    bool whole;   /* L3 does not hold: look at everything */
    uint64_t end; /* L2 */
} slabs;

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void ph_live_begin(uint64_t epoch, bool full)
{
    ph_agent.areas.relook.used = 0;
    bool all_told = ph_track_protects(&ph_agent.track) && ph_agent.ahead.looked != epoch;
    slabs.whole = full || !all_told;
}

void ph_live_changed(uint64_t start, uint64_t end)
{
    start = most(start, ph_heap_slab_table.start);
    end = least(end, ph_heap_slab_table.end);
    if (start >= end || slabs.whole)
        return;
    struct ph_area *a = &ph_agent.areas.relook;
    struct ph_span of = ph_heap_slabs_of(start, end), *last = (struct ph_span *)a->base;
    last += a->used / sizeof *last;
    if (a->used && (last[-1].end >= of.start || a->used == MOST * sizeof of))
        last[-1].end = of.end;
    else
        *(struct ph_span *)ph_area_push(a, sizeof of) = of;
}

static void look(uint64_t start, uint64_t end)
{
    struct ph_span live;
    uint64_t at = start;
    for (; at < end && ph_heap_live_run(at, end, &live); at = live.end) {
        ph_hot_dead(at, live.start);
        ph_pages_note_present(live.start, live.end);
    }
    ph_hot_dead(at, end);
}

/** In [at, end), of which the table has not changed (L1, L2). */
static void note_unchanged(uint64_t at, uint64_t end)
{
    uint64_t known = least(end, slabs.end), stop;
    while (at < known && (at = ph_outside_was_present(at, known, &stop)) < known) {
        ph_pages_note_present(at, stop);
        at = stop;
    }
    look(most(at, known), end);
}

void ph_live_note(uint64_t start, uint64_t end)
{
    bool of_slabs = start == ph_heap_slab_space.start;
    if (!of_slabs || slabs.whole) {
        look(start, end);
    } else {
        const struct ph_area *a = &ph_agent.areas.relook;
        const struct ph_span *s = (const struct ph_span *)a->base,
                             *last = s + a->used / sizeof *s;
        uint64_t at = start;
        for (; s < last && s->start < end; s++) {
            note_unchanged(at, s->start);
            at = least(s->end, end);
            look(s->start, at);
        }
        note_unchanged(at, end);
    }
    if (of_slabs)
        slabs.end = end;
}
