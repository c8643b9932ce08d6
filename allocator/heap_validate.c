/* SPDX-License-Identifier: MIT */
/*
 * heap_validate.c - the invariants of heap_internal.h, checked
 *
 * For tests, with no other thread in the heap. The text of a violation starts with the number
 * of the invariant.
 */
#include "heap_fast.h"

#include <stdarg.h>
#include <stdio.h>

struct report {
    char *why;
    size_t size;
};

static __attribute__((format(printf, 2, 3))) bool violated(const struct report *r,
                                                           const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->why, r->size, format, args);
    va_end(args);
    return false;
}

/* ---- slabs --------------------------------------------------------------------------- */

static bool check_bitmaps(const struct report *r, uint32_t i)
{
    const struct ph_slab *s = &ph_slabs[i];
    unsigned nfree = 0, nremote = 0;
    for (unsigned w = 0; w < PH_WORDS; w++) {
        uint64_t valid = s->state == PH_SLAB_FREE ? 0 : ph_slab_valid(s, w);
        if (s->state != PH_SLAB_FREE && (~s->free[w] | s->remote[w]) & ~valid)
            return violated(r, "S2: slab %u, word %u has a slot beyond its %u", i, w,
                            s->nslots);
        if (s->state != PH_SLAB_FREE && s->free[w] & s->remote[w])
            return violated(r, "S2: slab %u, word %u has slots freed twice", i, w);
        nfree += (unsigned)__builtin_popcountll(s->free[w] & valid);
        nremote += (unsigned)__builtin_popcountll(s->remote[w]);
    }
    if (nremote && s->state == PH_SLAB_FREE)
        return violated(r, "S2: slab %u is free and has remote bits", i);
    if (nremote && !s->pending)
        return violated(r, "S4: slab %u has remote frees and is not pending", i);
    if (s->state == PH_SLAB_FULL && (nfree || s->stamp == ph_heap_epoch))
        return violated(r, "S3: slab %u is full with %u free, stamp %u", i, nfree, s->stamp);
    if (s->state == PH_SLAB_PARTIAL && nfree == s->nslots)
        return violated(r, "S3: slab %u is partial with all %u slots free", i, nfree);
    return true;
}

static bool check_record(const struct report *r, uint32_t i)
{
    const struct ph_slab *s = &ph_slabs[i];
    uint32_t last = s->nslots - 1u;
    switch (s->state) {
    case PH_SLAB_FREE:
        if (s->owner != PH_NO_OWNER)
            return violated(r, "S1: slab %u is free and owned by %u", i, s->owner);
        return check_bitmaps(r, i);
    case PH_SLAB_FULL:
    case PH_SLAB_PARTIAL:
    case PH_SLAB_CURRENT:
        break;
    default:
        return violated(r, "S1: slab %u has state %u", i, s->state);
    }
    if (s->owner >= ph_heap.nlocals || s->class >= PH_CLASSES ||
        s->size != ph_class_size[s->class] || s->nslots != PH_SLAB_SIZE / s->size ||
        s->base != PH_SLABS + i * PH_SLAB_SIZE || s->cursor >= s->words ||
        s->busy >= s->words || (uint64_t)last * s->size * s->inverse >> 32 != last)
        return violated(r, "S1: slab %u of owner %u, class %u is malformed", i, s->owner,
                        s->class);
    return check_bitmaps(r, i);
}

/* Adds the list's length to *count. */
static bool check_list(const struct report *r, const struct ph_local *local, unsigned c,
                       enum ph_slab_state state, uint32_t *count)
{
    const struct ph_slab_list *list =
        state == PH_SLAB_FULL ? &local->full[c] : &local->partial[c];
    uint32_t n = 0, previous = 0;
    for (uint32_t i = list->head; i; previous = i, i = ph_slabs[i].next) {
        const struct ph_slab *s = &ph_slabs[i];
        if (i >= ph_heap.nslabs || ++n > list->count)
            return violated(r, "S1: a list of local %u, class %u is longer than its count",
                            local->number, c);
        if (s->owner != local->number || s->class != c || s->state != state ||
            s->prev != previous)
            return violated(r, "S1: slab %u is on a wrong list of local %u, class %u", i,
                            local->number, c);
    }
    if (n != list->count || list->tail != previous)
        return violated(r, "S1: a list of local %u, class %u has a wrong end", local->number,
                        c);
    *count += n;
    return true;
}

static bool check_hints(const struct report *r, const struct ph_local *local, unsigned c)
{
    for (unsigned i = 0; i < PH_HINTS; i++) {
        const struct ph_hint *h = &local->hint[c][i];
        if (!h->block)
            continue;
        const struct ph_slab *s = ph_slab_of(h->block);
        uint32_t slot = ph_slot_at(s, h->block);
        if (!i || !ph_in_slabs(h->block) || ph_slab_index(s) >= ph_heap.nslabs ||
            s->state == PH_SLAB_FREE || s->owner != local->number || s->class != c ||
            slot >= s->nslots || h->bit != ph_hint_bit(s, slot))
            return violated(r, "S5: a hint of local %u, class %u is at %p", local->number, c,
                            h->block);
    }
    return true;
}

static bool check_local(const struct report *r, uint32_t l, uint32_t *owned, uint32_t *pending)
{
    const struct ph_local *local = &ph_locals[l];
    if (local->number != l)
        return violated(r, "S1: local %u thinks that it is %u", l, local->number);
    for (unsigned c = 0; c < PH_CLASSES; c++) {
        const struct ph_slab *s = local->current[c];
        if (s) {
            if (!local->in_use || s->owner != l || s->class != c || s->state != PH_SLAB_CURRENT)
                return violated(r, "S1: slab %u is wrongly current in local %u, class %u",
                                ph_slab_index(s), l, c);
            ++*owned;
        }
        if (!check_list(r, local, c, PH_SLAB_PARTIAL, owned) ||
            !check_list(r, local, c, PH_SLAB_FULL, owned) || !check_hints(r, local, c))
            return false;
    }
    for (uint32_t i = local->pending; i; i = ph_slabs[i].pending_next) {
        if (i >= ph_heap.nslabs || !ph_slabs[i].pending || ++*pending > ph_heap.nslabs)
            return violated(r, "S4: slab %u is wrongly pending at local %u", i, l);
    }
    return true;
}

static bool check_slabs(const struct report *r)
{
    uint32_t nfree = 0, pool = 0, npending = 0, pending = 0, owned = 0;
    for (uint32_t i = 1; i < ph_heap.nslabs; i++) {
        if (!check_record(r, i))
            return false;
        nfree += ph_slabs[i].state == PH_SLAB_FREE;
        npending += ph_slabs[i].pending;
    }
    for (uint32_t i = ph_heap.slab_pool; i; i = ph_slabs[i].next) {
        if (i >= ph_heap.nslabs || ph_slabs[i].state != PH_SLAB_FREE || ++pool > nfree)
            return violated(r, "S1: slab %u is wrongly in the pool", i);
    }
    for (uint32_t l = 0; l < ph_heap.nlocals; l++) {
        if (!check_local(r, l, &owned, &pending))
            return false;
    }
    if (pool != nfree || owned + nfree + 1 != ph_heap.nslabs)
        return violated(r, "S1: of %u slabs %u are free, %u in the pool, %u owned",
                        ph_heap.nslabs - 1, nfree, pool, owned);
    if (pending != npending)
        return violated(r, "S4: %u slabs are pending, %u are on lists", npending, pending);
    return true;
}

/* ---- extents ------------------------------------------------------------------------- */

/* Whether a is before b in (pages, start), both free. */
static bool ordered(uint32_t a, uint32_t b)
{
    const struct ph_extent *x = &ph_extents[a], *y = &ph_extents[b];
    return x->span != y->span ? x->span < y->span : x->start < y->start;
}

/* The subtree of @p id lies between @p low and @p high (0: no bound). */
static bool check_tree(const struct report *r, uint32_t id, uint32_t low, uint32_t high,
                       uint32_t *count)
{
    if (!id)
        return true;
    const struct ph_extent *e = &ph_extents[id];
    if (id >= ph_heap.nrecords || e->start == UINT32_MAX || e->span & PH_EXTENT_LIVE)
        return violated(r, "X3: extent %u is in the tree and not free", id);
    if ((low && !ordered(low, id)) || (high && !ordered(id, high)))
        return violated(r, "X3: extent %u is at a wrong place in the tree", id);
    if ((e->left && ph_extent_priority(e->left) > ph_extent_priority(id)) ||
        (e->right && ph_extent_priority(e->right) > ph_extent_priority(id)))
        return violated(r, "X3: extent %u has a child of higher priority", id);
    ++*count;
    return check_tree(r, e->left, low, id, count) && check_tree(r, e->right, id, high, count);
}

static bool check_extents(const struct report *r)
{
    uint32_t tiles = 0, nfree = 0, in_tree = 0, unused = 0;
    bool free_before = false;
    for (uint64_t page = 0; page < ph_heap.top;) {
        uint32_t id = ph_page_map[page];
        const struct ph_extent *e = &ph_extents[id];
        uint64_t n = e->span & ~PH_EXTENT_LIVE;
        if (!id || id >= ph_heap.nrecords || e->start != page || !n || n > ph_heap.top - page ||
            ph_page_map[page + n - 1] != id)
            return violated(r, "X1: page %llu begins no extent, or one that is malformed",
                            (unsigned long long)page);
        bool is_free = !(e->span & PH_EXTENT_LIVE);
        if (is_free && free_before)
            return violated(r, "X2: extent %u and the one before it are free", id);
        free_before = is_free;
        nfree += is_free;
        tiles++;
        page += n;
    }
    if (!check_tree(r, ph_heap.tree, 0, 0, &in_tree))
        return false;
    if (in_tree != nfree)
        return violated(r, "X3: %u extents are free, %u in the tree", nfree, in_tree);
    for (uint32_t id = ph_heap.unused_record; id; id = ph_extents[id].left) {
        if (id >= ph_heap.nrecords || ph_extents[id].start != UINT32_MAX ||
            ++unused > ph_heap.nrecords)
            return violated(r, "X4: extent record %u is wrongly unused", id);
    }
    if (tiles + unused + 1 != ph_heap.nrecords)
        return violated(r, "X4: of %u extent records %u are used, %u unused",
                        ph_heap.nrecords - 1, tiles, unused);
    return true;
}

bool ph_heap_validate(char *why, size_t why_size)
{
    struct report r = {why, why_size};
    if (why_size)
        why[0] = '\0';
    return !ph_heap.ready || (check_slabs(&r) && check_extents(&r));
}
