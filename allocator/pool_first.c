/* SPDX-License-Identifier: MIT */
/*
 * pool_first.c - the first epoch goes home at once
 *
 * The first epoch is as large as the program. In the log it would be on the disk twice when it
 * is migrated, and be written twice. But no epoch reaches home yet, so its pages may be written
 * where they will be at home; the index names them there, and migration has only the tables to
 * fill. That takes an extent for each stretch, so it is done for stretches of which many pages
 * come in a row; the others' go to the log.
 *
 *   take an extent; zeros to its table, pages to their places  -->  sync of the commit (P1)
 *     -->  slots say home (P7)  -->  root record, sync
 *
 * A crash before the root record is durable leaves empty homes, and a crash that loses a slot
 * leaves an extent of the log: each is what the next opening finds.
 *
 * Invariant: as long as the root names no epoch, nothing at home is reached (P3).
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

bool ph_first_is_due(const struct ph_pool *p)
{
    return p->epochs == 0 && p->root.recent[0].number == 0 && p->root.home_epoch == 0;
}

/* Take an extent for @p stretch, and have its table cleared. */
static int make_home(struct ph_pool *p, uint64_t stretch, uint32_t *slot)
{
    struct ph_writing *w = &p->writing;
    uint64_t table = ph_table_pages(&p->super) * PH_PAGE;
    int err = ph_pool_grow(&w->home, &w->home_capacity, w->homes + 1, sizeof(*w->home));

    if (!err && !w->zeros) {
        w->zeros = aligned_alloc(PH_PAGE, table);
        if (w->zeros)
            memset(w->zeros, 0, table);
        else
            err = PH_ENOMEM;
    }
    pthread_mutex_lock(&p->lock);
    if (!err)
        err = ph_extent_take(p, PH_EXTENT_TAKEN, slot);
    if (!err) {
        p->extent[*slot].stretch = stretch;
        w->home[w->homes++] = *slot;
    }
    pthread_mutex_unlock(&p->lock);
    if (err)
        return err;
    ph_extent_clear(p, *slot);
    return ph_queue_add(p, w->zeros, table, p->extent[*slot].offset);
}

/* The extent for @p stretch in this epoch; PH_NO_SLOT: none. */
static uint32_t home_for(const struct ph_pool *p, uint64_t stretch)
{
    const struct ph_writing *w = &p->writing;

    if (w->homes && p->extent[w->home[w->homes - 1]].stretch == stretch)
        return w->home[w->homes - 1];
    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if ((e->role == PH_EXTENT_HOME || e->role == PH_EXTENT_TAKEN) && e->stretch == stretch)
            return p->by_offset[i];
    }
    return PH_NO_SLOT;
}

int ph_first_place(struct ph_pool *p, struct ph_entry_pm *e, size_t n, size_t *run,
                   bool *placed)
{
    uint64_t stretch = ph_stretch_of(p, e[0].addr);
    uint32_t slot;
    size_t k = 1;
    int err;

    while (k < n && ph_stretch_of(p, e[k].addr) == stretch)
        k++;
    *run = k;
    *placed = false;
    pthread_mutex_lock(&p->lock);
    slot = home_for(p, stretch);
    pthread_mutex_unlock(&p->lock);
    if (slot == PH_NO_SLOT && k < ph_tuning.first_run)
        return 0;
    if (slot == PH_NO_SLOT) {
        err = make_home(p, stretch, &slot);
        if (err)
            return err == PH_EPOOLSIZE || err == PH_EFULL ? 0 : err; /* the log may do */
    }
    for (size_t i = 0; i < k; i++)
        e[i].offset = ph_home_place(p, slot, e[i].addr);
    *placed = true;
    return 0;
}

int ph_first_name(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;
    int err = 0;

    while (w->homes && !err) {
        uint32_t slot = w->home[w->homes - 1];
        err = ph_extent_name(p, slot, PH_SLOT_HOME, p->extent[slot].stretch);
        if (err && ph_extent_name(p, slot, PH_SLOT_NONE, 0))
            w->homes--; /* it may say home or not: leave it alone */
        if (!err) {
            p->extent[slot].role = PH_EXTENT_HOME;
            w->homes--;
        }
    }
    return err;
}

void ph_first_abort(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    while (w->homes)
        p->extent[w->home[--w->homes]].role = PH_EXTENT_FREE;
}
