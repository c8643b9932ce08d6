/* SPDX-License-Identifier: MIT */
/*
 * heap_extent.c - large blocks
 *
 * Extent space is tiled by extents, live and free, up to `top`, which only grows (X1). Free
 * neighbours are joined at once (X2). An allocation takes the smallest free extent that is
 * large enough, of those the lowest, and gives back the rest; so a temporary that is made and
 * dropped in a loop gets the same warm pages each time. Only when nothing fits does `top`
 * move. Memory stays mapped and populated.
 *
 * The walker reads this structure without the lock, while a thread may be stopped anywhere in
 * here. It goes from extent to extent by the page map and `span`. So a record is complete and
 * named in the page map before a store of `span` (or of `top`) makes it reachable, and that
 * single store changes from one correct tiling to another. What is being cut off or joined is
 * free on both sides of that store.
 *
 * The free extents form a treap over (pages, start) whose priorities are a hash of the record's
 * number: balanced in expectation, with no field to keep.
 */
#include "heap_internal.h"

#include <errno.h>

#define HUGE_PAGES  ((uint64_t)512)  /* pages of 2 MiB */
#define ALIGN_PAGES ((uint64_t)2048) /* from 8 MiB new extents start on a huge page */

uint32_t ph_extent_priority(uint32_t id)
{
    uint32_t x = id * 2654435769u;
    x ^= x >> 15;
    return x * 2246822519u;
}

static uint64_t pages_of(uint32_t id)
{
    return ph_extents[id].span & ~PH_EXTENT_LIVE;
}

static void set_span(uint32_t id, uint64_t span)
{
    __atomic_store_n(&ph_extents[id].span, span, __ATOMIC_RELEASE);
}

static bool is_live(uint32_t id)
{
    return ph_extents[id].span & PH_EXTENT_LIVE;
}

static uint64_t end_of(uint32_t id)
{
    return ph_extents[id].start + pages_of(id);
}

/* Name the extent at its first and last page. */
static void map(uint32_t id)
{
    __atomic_store_n(&ph_page_map[ph_extents[id].start], id, __ATOMIC_RELEASE);
    __atomic_store_n(&ph_page_map[end_of(id) - 1], id, __ATOMIC_RELEASE);
}

/* ---- records ------------------------------------------------------------------------- */

/* Memory for @p n records, and for one more (used_spans in heap_walk.c). */
static bool reach_records(uint32_t n)
{
    return ph_space_reach(PH_PART_EXTENT_TABLE,
                          PH_EXTENT_TABLE + ((uint64_t)n + 1) * sizeof(struct ph_extent));
}

bool ph_extent_init(void)
{
    ph_heap.nrecords = 1;
    return reach_records(1);
}

/* A complete record, which no walk reaches yet. 0 when the table is full. */
static uint32_t record_new(uint64_t start, uint64_t span)
{
    uint32_t id = ph_heap.unused_record;
    if (id) {
        ph_heap.unused_record = ph_extents[id].left;
    } else {
        if (ph_heap.nrecords == PH_EXTENT_MAX || !reach_records(ph_heap.nrecords + 1))
            return 0;
        id = ph_heap.nrecords++;
    }
    struct ph_extent *e = &ph_extents[id];
    e->left = e->right = 0;
    set_span(id, span);
    __atomic_store_n(&e->start, (uint32_t)start, __ATOMIC_RELEASE);
    map(id);
    return id;
}

static void record_drop(uint32_t id)
{
    __atomic_store_n(&ph_extents[id].start, UINT32_MAX, __ATOMIC_RELEASE);
    ph_extents[id].left = ph_heap.unused_record;
    ph_heap.unused_record = id;
}

/* ---- the tree of free extents -------------------------------------------------------- */

static bool before(uint32_t a, uint32_t b)
{
    uint64_t na = pages_of(a), nb = pages_of(b);
    return na != nb ? na < nb : ph_extents[a].start < ph_extents[b].start;
}

static void tree_insert(uint32_t id)
{
    uint32_t *link = &ph_heap.tree;
    uint32_t priority = ph_extent_priority(id);
    while (*link && ph_extent_priority(*link) >= priority)
        link = before(id, *link) ? &ph_extents[*link].left : &ph_extents[*link].right;

    /* Split what hangs there into the part before id and the part after it. */
    uint32_t rest = *link, *left = &ph_extents[id].left, *right = &ph_extents[id].right;
    *link = id;
    while (rest) {
        if (before(rest, id)) {
            *left = rest;
            left = &ph_extents[rest].right;
            rest = *left;
        } else {
            *right = rest;
            right = &ph_extents[rest].left;
            rest = *right;
        }
    }
    *left = *right = 0;
}

static void tree_remove(uint32_t id)
{
    uint32_t *link = &ph_heap.tree;
    while (*link != id)
        link = before(id, *link) ? &ph_extents[*link].left : &ph_extents[*link].right;

    uint32_t left = ph_extents[id].left, right = ph_extents[id].right;
    while (left && right) {
        if (ph_extent_priority(left) >= ph_extent_priority(right)) {
            *link = left;
            link = &ph_extents[left].right;
            left = *link;
        } else {
            *link = right;
            link = &ph_extents[right].left;
            right = *link;
        }
    }
    *link = left ? left : right;
}

/* The smallest free extent of at least @p n pages; 0: none. */
static uint32_t tree_best(uint64_t n)
{
    uint32_t best = 0;
    for (uint32_t id = ph_heap.tree; id;) {
        if (pages_of(id) >= n) {
            best = id;
            id = ph_extents[id].left;
        } else {
            id = ph_extents[id].right;
        }
    }
    return best;
}

/* ---- cutting and joining ------------------------------------------------------------- */

/* Cut @p id, which is not in the tree, after @p n pages. The tail is free and not in the tree.
 * @return the tail; 0 when there are no more records. */
static uint32_t cut(uint32_t id, uint64_t n)
{
    uint64_t start = ph_extents[id].start, all = pages_of(id);
    uint32_t tail = record_new(start + n, all - n);
    if (!tail)
        return 0;
    set_span(id, n | (ph_extents[id].span & PH_EXTENT_LIVE));
    map(id);
    return tail;
}

/* Join the free @p next, which is not in the tree and follows @p id, to it. */
static void absorb(uint32_t id, uint32_t next)
{
    set_span(id, ph_extents[id].span + pages_of(next));
    record_drop(next);
    map(id);
}

static uint32_t free_after(uint32_t id)
{
    uint64_t end = end_of(id);
    if (end >= ph_heap.top || is_live(ph_page_map[end]))
        return 0;
    return ph_page_map[end];
}

static uint32_t free_before(uint32_t id)
{
    uint64_t start = ph_extents[id].start;
    if (start == 0 || is_live(ph_page_map[start - 1]))
        return 0;
    return ph_page_map[start - 1];
}

/* A free extent that is not in the tree: join it to its free neighbours, put it there. */
static void release(uint32_t id)
{
    uint32_t next = free_after(id), previous = free_before(id);
    if (next) {
        tree_remove(next);
        absorb(id, next);
    }
    if (previous) {
        tree_remove(previous);
        absorb(previous, id);
        id = previous;
    }
    tree_insert(id);
}

/* ---- new memory ---------------------------------------------------------------------- */

/* Memory for @p top pages of extent space and their entries in the page map. */
static bool reach_top(uint64_t top)
{
    return ph_space_reach(PH_PART_EXTENTS, PH_HEAP_EXTENTS + top * PH_PAGE) &&
           ph_space_reach(PH_PART_PAGE_MAP, PH_PAGE_MAP + top * sizeof(uint32_t));
}

static void raise_top(uint64_t top)
{
    __atomic_store_n(&ph_heap.top, top, __ATOMIC_RELEASE);
}

/* A free extent of at least @p n pages that ends at the top and holds a multiple of @p align
 * with @p n pages behind it; not in the tree. Its first *stale pages were in use before. */
static uint32_t grow(uint64_t n, uint64_t align, uint64_t *stale)
{
    uint64_t top = ph_heap.top;
    uint32_t last = top && !is_live(ph_page_map[top - 1]) ? ph_page_map[top - 1] : 0;
    uint64_t start = last ? ph_extents[last].start : top;
    uint64_t first = (start + align - 1) / align * align;
    if (n > PH_EXTENT_PAGES || first > PH_EXTENT_PAGES - n)
        return 0;
    uint64_t end = first + n;
    if (end > top && !reach_top(end))
        return 0;
    *stale = last ? pages_of(last) : 0;
    if (last) {
        tree_remove(last);
        if (end > top) {
            set_span(last, end - start);
            map(last);
            raise_top(end);
        }
        return last;
    }
    uint32_t id = record_new(start, end - start);
    if (id)
        raise_top(end);
    return id;
}

void *ph_extent_alloc(size_t size, size_t alignment, size_t *stale)
{
    if (size > PH_EXTENT_PAGES * PH_PAGE || alignment > PH_EXTENT_PAGES * PH_PAGE) {
        errno = ENOMEM;
        return NULL;
    }
    uint64_t n = size ? (size + PH_PAGE - 1) / PH_PAGE : 1;
    uint64_t align = alignment > PH_PAGE ? alignment / PH_PAGE : 1, rest, stale_pages;
    void *p = NULL;

    ph_lock_acquire(&ph_heap.extent_lock);
    uint32_t id = tree_best(n + align - 1);
    if (id) {
        tree_remove(id);
        stale_pages = pages_of(id);
    } else {
        if (align == 1 && n >= ALIGN_PAGES)
            align = HUGE_PAGES;
        id = grow(n, align, &stale_pages);
        if (!id)
            goto out;
    }

    /* Pages before an aligned start, and pages left over, go back. */
    uint64_t start = ph_extents[id].start, skip = (align - start % align) % align;
    if (skip) {
        uint32_t aligned = cut(id, skip);
        tree_insert(id);
        if (!aligned)
            goto out;
        id = aligned;
        stale_pages = stale_pages > skip ? stale_pages - skip : 0;
    }
    rest = pages_of(id) - n;
    if (rest) {
        uint32_t tail = cut(id, n);
        if (!tail) {
            release(id);
            goto out;
        }
        tree_insert(tail);
    }
    set_span(id, n | PH_EXTENT_LIVE);
    p = (void *)(PH_HEAP_EXTENTS + ph_extents[id].start * PH_PAGE);
    *stale = (stale_pages < n ? stale_pages : n) * PH_PAGE;
out:
    ph_lock_release(&ph_heap.extent_lock);
    if (!p)
        errno = ENOMEM;
    return p;
}

/* ---- live extents -------------------------------------------------------------------- */

/* The live extent that starts at @p p; 0: none. A stale entry of the page map names a record
 * that starts elsewhere, so what is found is true. Needs no lock for a block that is live. */
static uint32_t live_at(const void *p)
{
    uint64_t offset = (uintptr_t)p - PH_HEAP_EXTENTS, page = offset / PH_PAGE;
    if (offset % PH_PAGE || page >= __atomic_load_n(&ph_heap.top, __ATOMIC_ACQUIRE))
        return 0;
    uint32_t id = __atomic_load_n(&ph_page_map[page], __ATOMIC_ACQUIRE);
    if (!id || __atomic_load_n(&ph_extents[id].start, __ATOMIC_ACQUIRE) != page ||
        !(__atomic_load_n(&ph_extents[id].span, __ATOMIC_ACQUIRE) & PH_EXTENT_LIVE))
        return 0;
    return id;
}

bool ph_extent_free(void *p)
{
    ph_lock_acquire(&ph_heap.extent_lock);
    uint32_t id = live_at(p);
    if (id) {
        set_span(id, pages_of(id));
        release(id);
    }
    ph_lock_release(&ph_heap.extent_lock);
    return id != 0;
}

bool ph_extent_resize(void *p, size_t size)
{
    if (size > PH_EXTENT_PAGES * PH_PAGE)
        return false;
    uint64_t n = size ? (size + PH_PAGE - 1) / PH_PAGE : 1;
    bool done = false;
    ph_lock_acquire(&ph_heap.extent_lock);
    uint32_t id = live_at(p);
    if (!id)
        goto out;
    uint64_t old = pages_of(id), end = end_of(id);
    if (n <= old) {
        uint32_t tail = n < old ? cut(id, n) : 0;
        if (tail)
            release(tail);
        done = true;
        goto out;
    }
    uint64_t more = n - old;
    uint32_t next = free_after(id);
    uint64_t have = next ? pages_of(next) : 0;
    if (have >= more) {
        tree_remove(next);
        uint32_t tail = have > more ? cut(next, more) : 0;
        if (tail)
            tree_insert(tail);
        absorb(id, next); /* without a record for the tail all of it */
        done = true;
    } else if (end + have == ph_heap.top && PH_EXTENT_PAGES - ph_heap.top >= more - have &&
               reach_top(end + more)) {
        if (next) {
            tree_remove(next);
            absorb(id, next);
        }
        set_span(id, n | PH_EXTENT_LIVE);
        map(id);
        raise_top(end + more);
        done = true;
    }
out:
    ph_lock_release(&ph_heap.extent_lock);
    return done;
}

size_t ph_extent_size(const void *p)
{
    uint32_t id = live_at(p);
    return id ? pages_of(id) * PH_PAGE : 0;
}
