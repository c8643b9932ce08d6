/* SPDX-License-Identifier: MIT */
/*
 * heap_walk.c - which pages are live
 *
 * Read while all threads are parked, each at an arbitrary instruction, perhaps holding a lock
 * or half way through a change. So nothing is locked here, and lists, counts and trees are not
 * looked at: only the words whose single stores are the changes of liveness (state, free[] and
 * remote[] of slabs; the page map, span and top of extents). At worst a page counts as live
 * that is about to die.
 *
 * The range in ascending order: tables, slab space, extent space. Live stretches are found one
 * after the other and joined to runs.
 */
#include "heap_internal.h"

#include <string.h>

static uint64_t page_up(uint64_t addr)
{
    return (addr + PH_PAGE - 1) & ~(PH_PAGE - 1);
}

static uint64_t page_down(uint64_t addr)
{
    return addr & ~(PH_PAGE - 1);
}

/* ---- spans --------------------------------------------------------------------------- */

#define SPANS  6
#define TABLES 4 /* the first of them */

/* The used part of each table and space. */
static void used_spans(struct ph_span span[SPANS])
{
    uint64_t locals = __atomic_load_n(&ph_heap.nlocals, __ATOMIC_ACQUIRE);
    uint64_t slabs = __atomic_load_n(&ph_heap.nslabs, __ATOMIC_ACQUIRE);
    uint64_t records = __atomic_load_n(&ph_heap.nrecords, __ATOMIC_ACQUIRE);
    uint64_t pages = __atomic_load_n(&ph_heap.top, __ATOMIC_ACQUIRE);
    /* One more of each: a stopped thread may have written a record that is not counted yet. */
    const uint64_t used[SPANS][2] = {
        {PH_HEAP_BASE, PH_PAGE + (locals + 1) * sizeof(struct ph_local)},
        {PH_SLAB_TABLE, (slabs + 1) * sizeof(struct ph_slab)},
        {PH_EXTENT_TABLE, (records + 1) * sizeof(struct ph_extent)},
        {PH_PAGE_MAP, pages * sizeof(uint32_t)},
        {PH_SLABS, slabs * PH_SLAB_SIZE},
        {PH_HEAP_EXTENTS, pages * PH_PAGE},
    };
    for (int i = 0; i < SPANS; i++)
        span[i] = (struct ph_span){used[i][0], page_up(used[i][0] + used[i][1])};
}

size_t ph_heap_used_spans(struct ph_span *out, size_t max)
{
    if (!ph_heap.ready)
        return 0;
    struct ph_span span[SPANS];
    used_spans(span);
    size_t n = 0;
    for (int i = 0; i < SPANS; i++) {
        if (span[i].start == span[i].end)
            continue;
        if (n < max)
            out[n++] = span[i];
        else if (n)
            out[n - 1].end = span[i].end;
    }
    return n;
}

#define ROUNDED_TABLE (UINT64_C(1) << 20)
#define ROUNDED_SPACE (UINT64_C(16) << 20)

bool ph_heap_is_whole(void)
{
    return ph_heap.ready && ph_space->how == PH_SPACE_WHOLE;
}

_Static_assert(PH_HEAP_PARTS == PH_PARTS && SPANS == PH_PARTS, "parts of the range");

void ph_heap_memory_spans(struct ph_span out[PH_HEAP_PARTS])
{
    bool whole = ph_heap_is_whole();
    struct ph_span used[SPANS];
    used_spans(used);
    for (int i = 0; i < PH_PARTS; i++) {
        uint64_t to = i < TABLES ? ROUNDED_TABLE : ROUNDED_SPACE;
        uint64_t wanted = __atomic_load_n(&ph_space_wanted[i], __ATOMIC_RELAXED);
        uint64_t end = wanted > used[i].end ? wanted : used[i].end;
        end = (end + to - 1) & ~(to - 1);
        bool all = !whole || end > ph_part_start[i + 1];
        out[i] = (struct ph_span){ph_part_start[i], all ? ph_part_start[i + 1] : end};
    }
}

uint64_t ph_heap_memory_end(size_t part)
{
    return ph_heap.ready ? ph_space->end[part] : ph_part_start[part];
}

/* ---- stretches ----------------------------------------------------------------------- */

/* The first live stretch of slab space in [from, to), at most to the end of its slab. */
static bool slab_stretch(uint64_t from, uint64_t to, struct ph_span *out)
{
    while (from < to) {
        uint64_t index = (from - PH_SLABS) >> PH_SLAB_SHIFT;
        uint64_t base = PH_SLABS + (index << PH_SLAB_SHIFT);
        const struct ph_slab *s = &ph_slabs[index];
        unsigned page = (unsigned)((from - base) / PH_PAGE);
        while (page < PH_SLAB_PAGES && !ph_slab_page_live(s, page))
            page++;
        out->start = base + page * PH_PAGE;
        while (page < PH_SLAB_PAGES && ph_slab_page_live(s, page))
            page++;
        out->end = base + page * PH_PAGE;
        if (out->start < out->end)
            return out->start < to;
        from = base + PH_SLAB_SIZE;
    }
    return false;
}

/* Where a walk for @p page may begin: an extent at or before it. That is the one in which the
 * last walk began, if it still exists, so ascending walks cost one step per extent. */
static uint64_t extent_begin(uint64_t page)
{
    uint32_t hint = __atomic_load_n(&ph_heap.walk_hint, __ATOMIC_RELAXED);
    if (hint > page)
        return 0;
    uint32_t id = __atomic_load_n(&ph_page_map[hint], __ATOMIC_ACQUIRE);
    if (!id || __atomic_load_n(&ph_extents[id].start, __ATOMIC_ACQUIRE) != hint)
        return 0;
    return hint;
}

/* The first live stretch of extent space in [from, to), which ends at or before the top. */
static bool extent_stretch(uint64_t from, uint64_t to, struct ph_span *out)
{
    uint64_t first = (from - PH_HEAP_EXTENTS) / PH_PAGE,
             last = (to - PH_HEAP_EXTENTS) / PH_PAGE;
    uint64_t page = extent_begin(first);
    while (page < last) {
        uint32_t id = __atomic_load_n(&ph_page_map[page], __ATOMIC_ACQUIRE);
        uint64_t span = __atomic_load_n(&ph_extents[id].span, __ATOMIC_ACQUIRE);
        uint64_t end = page + (span & ~PH_EXTENT_LIVE);
        if (page <= first)
            __atomic_store_n(&ph_heap.walk_hint, (uint32_t)page, __ATOMIC_RELAXED);
        if (end > first && span & PH_EXTENT_LIVE) {
            uint64_t start = page > first ? page : first;
            out->start = PH_HEAP_EXTENTS + start * PH_PAGE;
            out->end = PH_HEAP_EXTENTS + end * PH_PAGE;
            return true;
        }
        page = end;
    }
    return false;
}

/* The first live stretch in [from, to); its end may lie beyond @p to. */
static bool next_stretch(uint64_t from, uint64_t to, struct ph_span *out)
{
    struct ph_span span[SPANS];
    used_spans(span);
    for (int i = 0; i < SPANS; i++) {
        uint64_t start = from > span[i].start ? from : span[i].start;
        uint64_t end = to < span[i].end ? to : span[i].end;
        if (start >= end)
            continue;
        if (i < TABLES) {
            *out = (struct ph_span){start, end};
            return true;
        }
        if (i == TABLES ? slab_stretch(start, end, out) : extent_stretch(start, end, out))
            return true;
    }
    return false;
}

/* Whether the page at @p addr may continue a stretch that ends there: a stretch ends within a
 * slab only at a dead page. */
static bool may_continue(uint64_t addr)
{
    return addr < PH_SLABS || addr >= PH_HEAP_EXTENTS || addr % PH_SLAB_SIZE == 0;
}

bool ph_heap_live_run(uint64_t from, uint64_t to, struct ph_span *out)
{
    from = page_down(from);
    to = page_up(to);
    if (!ph_heap.ready || !next_stretch(from, to, out))
        return false;
    struct ph_span more;
    while (out->end < to && may_continue(out->end) &&
           next_stretch(out->end, out->end + PH_PAGE, &more))
        out->end = more.end;
    if (out->end > to)
        out->end = to;
    return true;
}

const struct ph_span ph_heap_slab_space = {PH_SLABS, PH_HEAP_EXTENTS},
                     ph_heap_slab_table = {PH_SLAB_TABLE, PH_EXTENT_TABLE};

struct ph_span ph_heap_slabs_of(uint64_t start, uint64_t end)
{
    uint64_t first = (start - PH_SLAB_TABLE) / sizeof(struct ph_slab),
             last = (end - PH_SLAB_TABLE + sizeof(struct ph_slab) - 1) / sizeof(struct ph_slab);
    return (struct ph_span){PH_SLABS + first * PH_SLAB_SIZE, PH_SLABS + last * PH_SLAB_SIZE};
}

/* ---- statistics ---------------------------------------------------------------------- */

static void count_slabs(struct ph_heap_stats *out)
{
    for (uint32_t i = 1; i < ph_heap.nslabs; i++) {
        const struct ph_slab *s = &ph_slabs[i];
        if (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == PH_SLAB_FREE)
            continue;
        unsigned dead = s->nslots - s->words * 64u; /* S2: beyond nslots */
        for (unsigned w = 0; w < s->words; w++)
            dead += (unsigned)__builtin_popcountll(
                __atomic_load_n(&s->free[w], __ATOMIC_RELAXED) |
                __atomic_load_n(&s->remote[w], __ATOMIC_RELAXED));
        out->slab_pages += PH_SLAB_PAGES;
        out->live_blocks += s->nslots - dead;
        out->live_bytes += (uint64_t)(s->nslots - dead) * s->size;
        for (unsigned page = 0; page < PH_SLAB_PAGES; page++)
            out->live_pages += ph_slab_page_live(s, page);
    }
}

static void count_extents(struct ph_heap_stats *out)
{
    ph_lock_acquire(&ph_heap.extent_lock);
    for (uint64_t page = 0; page < ph_heap.top;) {
        uint64_t span = ph_extents[ph_page_map[page]].span, n = span & ~PH_EXTENT_LIVE;
        if (span & PH_EXTENT_LIVE) {
            out->live_blocks++;
            out->live_bytes += n * PH_PAGE;
            out->live_pages += n;
            out->extent_pages += n;
        } else {
            out->free_extent_pages += n;
        }
        page += n;
    }
    ph_lock_release(&ph_heap.extent_lock);
}

void ph_heap_get_stats(struct ph_heap_stats *out)
{
    memset(out, 0, sizeof *out);
    if (!ph_heap.ready)
        return;
    struct ph_span span[SPANS];
    used_spans(span);
    for (int i = 0; i < TABLES; i++)
        out->table_pages += (span[i].end - span[i].start) / PH_PAGE;
    out->live_pages = out->table_pages;
    count_slabs(out);
    count_extents(out);
}
