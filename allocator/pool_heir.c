/* SPDX-License-Identifier: MIT */
/*
 * pool_heir.c - heirs: what will be home, filled by an epoch
 *
 * Pages that go to the log are written twice, there and at home. That is in vain where an epoch
 * changes most of a stretch, like the first one, or one of a program that computes a large
 * array anew: so it gets an extent to itself there, the stretch's *heir*, with each page where
 * it will be at home. To the index they are pages of the log like all others. Migration adds
 * what the old home has beyond them, and the heir becomes the home; the old one is free.
 *
 *   free --place--> TAKEN --commit--> LOG, heir --migration--> HOME
 *     ^               |                   |
 *     +---- abort ----+                   +-- migration copies its pages, if that is less -->
 * free
 *
 * Which stretches: those that have no home and no heir, as soon as many of their pages come in
 * a row; and those of which the epoch before changed most. Whatever comes besides goes there
 * too.
 *
 * Invariant: all of an heir's segments are used, and belong to one epoch. What lies in it is
 * found from the index, and so is that it is an heir (ph_extent_settle).
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

/* The extent that the epoch in progress has for @p stretch. */
static uint32_t taken_for(const struct ph_pool *p, uint64_t stretch)
{
    const struct ph_writing *w = &p->writing;

    for (size_t i = w->heirs; i-- > 0;)
        if (p->extent[w->heir[i]].stretch == stretch)
            return w->heir[i];
    return PH_NO_SLOT;
}

/* Whether @p stretch has a place that it can go to. @pre lock held. */
static bool has_place(const struct ph_pool *p, uint64_t stretch)
{
    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if ((e->role == PH_EXTENT_HOME || e->heir) && e->stretch == stretch)
            return true;
    }
    return false;
}

/* How many pages of @p stretch the epoch before has changed, if those were most. */
static uint32_t expected(const struct ph_pool *p, uint64_t stretch)
{
    size_t low = 0, high = p->denses;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (p->dense[mid].stretch < stretch)
            low = mid + 1;
        else
            high = mid;
    }
    return low < p->denses && p->dense[low].stretch == stretch ? p->dense[low].pages : 0;
}

/* Take an extent to be the heir of @p stretch. @p pages: expected to come. */
static int take(struct ph_pool *p, uint64_t stretch, uint32_t pages, uint32_t *slot)
{
    struct ph_writing *w = &p->writing;
    bool full = pages >= p->super.stretch_pages / 4 * 3;
    int err = ph_pool_grow(&w->heir, &w->heir_capacity, w->heirs + 1, sizeof(*w->heir));

    pthread_mutex_lock(&p->lock);
    if (!err)
        err = ph_room_allows(p, p->super.extent_pages * PH_PAGE);
    if (!err)
        err = ph_extent_take(p, PH_EXTENT_TAKEN, full, slot);
    if (!err) {
        p->extent[*slot].stretch = stretch;
        w->heir[w->heirs++] = *slot;
    }
    pthread_mutex_unlock(&p->lock);
    if (!err && full) /* the blocks that it has will do */
        p->extent[*slot].holes = 0;
    else if (!err)
        ph_extent_clear(p, *slot);
    return err;
}

int ph_heir_place(struct ph_pool *p, struct ph_entry_pm *e, size_t n, size_t *run, bool *placed)
{
    struct ph_writing *w = &p->writing;
    uint64_t stretch = ph_stretch_of(p, e[0].addr);
    uint32_t slot = taken_for(p, stretch), pages = 0;
    size_t k = 1;
    int err;

    while (k < n && ph_stretch_of(p, e[k].addr) == stretch)
        k++;
    *run = k;
    *placed = false;
    if (slot == PH_NO_SLOT && !w->no_heirs) {
        pages = expected(p, stretch);
        if (!pages && k >= ph_tuning.heir_run) {
            pthread_mutex_lock(&p->lock);
            pages = has_place(p, stretch) ? 0 : (uint32_t)k;
            pthread_mutex_unlock(&p->lock);
        }
        err = pages ? take(p, stretch, pages, &slot) : 0;
        if (err == PH_EPOOLSIZE || err == PH_EFULL)
            w->no_heirs = true; /* the log may do */
        else if (err)
            return err;
    }
    if (slot == PH_NO_SLOT || (pages && w->no_heirs))
        return 0;
    for (size_t i = 0; i < k; i++)
        e[i].offset = ph_home_place(p, slot, e[i].addr);
    w->heir_pages += k;
    *placed = true;
    return 0;
}

/* Pages of [from, to) that are present, as the epoch in progress says. @p i: where to begin. */
static uint64_t count_present(const struct ph_writing *w, uint64_t from, uint64_t to, size_t *i)
{
    uint64_t pages = 0;

    while (*i < w->spans && w->span[*i].end <= from)
        ++*i;
    for (size_t k = *i; k < w->spans && w->span[k].start < to; k++) {
        uint64_t start = w->span[k].start > from ? w->span[k].start : from;
        uint64_t end = w->span[k].end < to ? w->span[k].end : to;
        pages += (end - start) / PH_PAGE;
    }
    return pages;
}

/* Note the stretches of which the epoch in progress has changed most, and enough. Without
 * memory for that there are none. */
static void note_dense(struct ph_pool *p)
{
    const struct ph_writing *w = &p->writing;
    size_t span = 0, n = 0;

    p->denses = 0;
    for (size_t i = 0; i < w->entries && w->present_set; i += n) {
        uint64_t stretch = ph_stretch_of(p, w->entry[i].addr);
        uint64_t end = stretch + p->super.stretch_pages * PH_PAGE;
        uint32_t pages = 0;
        for (n = 0; i + n < w->entries && w->entry[i + n].addr < end; n++)
            pages += w->entry[i + n].offset != 0;
        if (pages < p->super.stretch_pages / 16 ||
            pages < count_present(w, stretch, end, &span) / 4 * 3)
            continue;
        if (ph_pool_grow(&p->dense, &p->dense_capacity, p->denses + 1, sizeof(*p->dense)))
            return;
        p->dense[p->denses++] = (struct ph_dense){stretch, pages};
    }
}

void ph_heir_adopt(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    note_dense(p);
    while (w->heirs) {
        struct ph_extent *e = &p->extent[w->heir[--w->heirs]];
        e->role = PH_EXTENT_LOG;
        e->heir = true;
        e->used = PH_ALL_SEGMENTS;
        for (uint32_t s = 0; s < PH_SEGMENTS; s++)
            e->last_epoch[s] = w->number;
    }
}

void ph_heir_abort(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    while (w->heirs)
        p->extent[w->heir[--w->heirs]].role = PH_EXTENT_FREE;
}

/* Of the heirs of the entries' stretch that @p to or an earlier epoch has filled, the one that
 * most of the entries lie in. @pre lock held. @p inside: how many. */
static uint32_t best_heir(const struct ph_pool *p, const struct ph_entry_pm *e, size_t n,
                          uint64_t to, size_t *inside)
{
    uint32_t best = PH_NO_SLOT;

    *inside = 0;
    for (uint32_t i = 0; i < p->extents; i++) {
        uint32_t slot = p->by_offset[i];
        const struct ph_extent *x = &p->extent[slot];
        size_t k = 0;
        if (!x->heir || x->stretch != ph_stretch_of(p, e[0].addr) || x->last_epoch[0] > to)
            continue;
        for (size_t j = 0; j < n; j++)
            k += ph_is_at_home(p, slot, &e[j]);
        if (k > *inside) {
            *inside = k;
            best = slot;
        }
    }
    return best;
}

int ph_heir_choose(struct ph_pool *p, const struct ph_entry_pm *e, size_t n, uint64_t to,
                   uint32_t home, struct ph_sum_pm *table, uint32_t *heir)
{
    size_t inside, pages = 0, rest = 0;
    int err;

    *heir = PH_NO_SLOT;
    pthread_mutex_lock(&p->lock);
    uint32_t best = best_heir(p, e, n, to, &inside);
    pthread_mutex_unlock(&p->lock);
    if (best == PH_NO_SLOT)
        return 0;
    for (size_t i = 0; i < n; i++)
        pages += e[i].offset && (home == PH_NO_SLOT || !ph_is_at_home(p, home, &e[i]));
    if (home != PH_NO_SLOT) {
        err = ph_home_table(p, home, table);
        if (err)
            return err;
        for (size_t i = 0; i < n; i++)
            table[(e[i].addr - p->extent[home].stretch) / PH_PAGE] = (struct ph_sum_pm){0, 0};
        for (uint32_t k = 0; k < p->super.stretch_pages; k++)
            rest += !ph_sum_is_zero(table[k]);
    }
    if (pages - inside + rest < pages) /* what would be copied: to the heir, or else */
        *heir = best;
    return 0;
}
