/* SPDX-License-Identifier: MIT */
/*
 * pool_home.c - migration: from the log to the home image
 *
 * Left alone, the log would grow for ever. Migration takes the oldest epochs off it: it merges
 * their indexes, drops what is newer in the epochs up to O, which nobody will look for at home,
 * writes the rest to its places at home, in address order, and then the log's extents that no
 * other epoch uses are free. The longer a page waits in the log, the likelier it is written
 * again and never goes home: so a migration leaves some of the epochs before O. In steps:
 *
 *   1  root, both records: O = the oldest epoch that is kept          (P3: retire)
 *   2  extents for new stretches: zero tables, sync, name the slots    (P7)
 *   3  pages and table entries, stretch by stretch: to its home, or, if that is less, what an
 *      heir does not have to the heir (pool_heir.c)
 *   4  sync                                                            (P4)
 *      slots of the heirs say home, sync; those of the old homes say none, sync   (P11)
 *   5  slots of stretches without pages say none                       (P7)
 *      root, both records: H = the newest epoch that went home         (P5)
 *   6  free the log's segments, and the extents of old homes and of those stretches;
 *      segments that the log has not needed become holes, and so does what homes have lost
 *      for longer (pool_shrink.c)
 *
 * A crash or an error anywhere leaves every epoch from O on readable, since the log is whole
 * until 5; migration starts again from 1. So does one that the pool's closing cuts short: the
 * program's end is not to wait for what only a next run would gain from. Checksums are carried
 * over, not computed anew, so a page that was damaged in the log stays recognisable. When,
 * pool_pace.c says.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

/* A stretch whose heir becomes its home. */
struct change {
    uint32_t heir;
    uint32_t home; /* PH_NO_SLOT: there is none yet */
};

/* One migration under way. */
struct migration {
    uint64_t to, oldest;    /* becomes H, O */
    size_t epochs;          /* how many leave the log */
    size_t excess;          /* how many are older than O */
    struct ph_index merged; /* what goes home */
    struct change *change;  /* in order */
    size_t changes, change_capacity;
    struct ph_entry_pm *whole; /* of one such stretch */
    struct ph_sum_pm *table;
    char *buffer;        /* PH_IO_CHUNK, page-aligned */
    uint64_t heir_pages; /* more than before at home, once the heirs are */
    uint64_t migrated;
    uint32_t *emptied; /* slots of stretches without pages */
    uint32_t nemptied;
};

static uint64_t stretch_bytes(const struct ph_pool *p)
{
    return p->super.stretch_pages * PH_PAGE;
}

uint64_t ph_stretch_of(const struct ph_pool *p, uint64_t addr)
{
    return addr - addr % stretch_bytes(p);
}

uint64_t ph_home_place(const struct ph_pool *p, uint32_t slot, uint64_t addr)
{
    const struct ph_extent *e = &p->extent[slot];

    return e->offset + ph_table_pages(&p->super) * PH_PAGE + (addr - e->stretch);
}

bool ph_is_at_home(const struct ph_pool *p, uint32_t slot, const struct ph_entry_pm *e)
{
    return p->extent[slot].stretch == ph_stretch_of(p, e->addr) &&
           e->offset == ph_home_place(p, slot, e->addr);
}

int ph_home_table(struct ph_pool *p, uint32_t slot, struct ph_sum_pm *table)
{
    int err =
        ph_io_read(&p->io, table, ph_table_pages(&p->super) * PH_PAGE, p->extent[slot].offset);

    return err == PH_ETRUNC ? PH_ECORRUPT : err;
}

static uint32_t home_of(const struct ph_pool *p, uint64_t stretch)
{
    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role == PH_EXTENT_HOME && e->stretch == stretch)
            return p->by_offset[i];
    }
    return PH_NO_SLOT;
}

/* Step 1. */
static int retire(struct ph_pool *p, struct migration *m)
{
    int err = 0;

    m->epochs = ph_home_batch(p);
    m->excess = ph_home_excess(p);
    m->to = p->epoch[m->epochs - 1].info.number;
    m->oldest = p->epoch[m->excess].info.number;
    if (p->root.oldest < m->oldest && ph_tuning.wrong != PH_WRONG_NO_RETIRE) {
        p->root.oldest = m->oldest;
        err = ph_root_write_both(p);
    }
    return err;
}

/* The merged indexes of epochs [first, end). Only migration takes any off the start. */
static int load(struct ph_pool *p, size_t first, size_t end, struct ph_index *merged)
{
    size_t n = end - first;
    struct ph_epoch *epoch = malloc((n + 1) * sizeof(*epoch));
    struct ph_header_pm *h = malloc(sizeof(*h));
    int err = epoch && h ? 0 : PH_ENOMEM;

    if (!err) {
        pthread_mutex_lock(&p->lock);
        memcpy(epoch, p->epoch + first, n * sizeof(*epoch));
        pthread_mutex_unlock(&p->lock);
        err = ph_index_load_epochs(p, epoch, n, false, h, merged);
    }
    free(epoch);
    free(h);
    return err;
}

/* What goes home: of what the epochs that leave have, all that has no newer version up to O. */
static int load_all(struct ph_pool *p, struct migration *m)
{
    size_t end = m->excess + 1, n = 0, k = 0;
    struct ph_index *x = &m->merged, newer;
    int err = load(p, 0, m->epochs, x);

    if (err)
        return err;
    if (ph_tuning.wrong == PH_WRONG_LATE_VERSION)
        end = p->epochs;
    err = load(p, m->epochs, end, &newer);
    if (err)
        return err;
    for (size_t i = 0; i < x->n; i++) {
        while (k < newer.n && newer.entry[k].addr < x->entry[i].addr)
            k++;
        if (k == newer.n || newer.entry[k].addr != x->entry[i].addr)
            x->entry[n++] = x->entry[i];
    }
    x->n = n;
    ph_index_free(&newer);
    return 0;
}

/* How many entries from @p i on belong to the same stretch; whether one of them is a page. */
static size_t group(const struct ph_pool *p, const struct ph_index *x, size_t i, bool *pages)
{
    uint64_t stretch = ph_stretch_of(p, x->entry[i].addr);
    size_t n = 0;

    *pages = false;
    while (i + n < x->n && ph_stretch_of(p, x->entry[i + n].addr) == stretch) {
        *pages = *pages || x->entry[i + n].offset;
        n++;
    }
    return n;
}

static int zero_table(struct ph_pool *p, struct migration *m, uint32_t slot)
{
    if (p->extent[slot].blank)
        return 0;
    ph_extent_clear(p, slot);
    memset(m->table, 0, ph_table_pages(&p->super) * PH_PAGE);
    return ph_io_write(&p->io, m->table, ph_table_pages(&p->super) * PH_PAGE,
                       p->extent[slot].offset);
}

/* The heir that becomes home of @p stretch; PH_NO_SLOT: none. */
static uint32_t heir_of(const struct ph_pool *p, const struct migration *m, uint64_t stretch)
{
    for (size_t i = 0; i < m->changes; i++)
        if (p->extent[m->change[i].heir].stretch == stretch)
            return m->change[i].heir;
    return PH_NO_SLOT;
}

/* Which heirs become homes. */
static int choose_heirs(struct ph_pool *p, struct migration *m)
{
    size_t step;
    bool pages;
    int err = 0;

    for (size_t i = 0; i < m->merged.n && !err; i += step) {
        const struct ph_entry_pm *e = &m->merged.entry[i];
        uint32_t heir, home;
        step = group(p, &m->merged, i, &pages);
        pthread_mutex_lock(&p->lock);
        home = home_of(p, ph_stretch_of(p, e->addr));
        pthread_mutex_unlock(&p->lock);
        err = ph_heir_choose(p, e, step, m->to, home, m->table, &heir);
        if (err || heir == PH_NO_SLOT)
            continue;
        err = ph_pool_grow(&m->change, &m->change_capacity, m->changes + 1, sizeof(*m->change));
        if (!err)
            m->change[m->changes++] = (struct change){heir, home};
    }
    return err;
}

/* Step 2: a home for each stretch that has none. */
static int settle_stretches(struct ph_pool *p, struct migration *m)
{
    struct {
        uint32_t slot;
        uint64_t stretch;
    } *fresh = NULL;
    size_t n = 0, named = 0, capacity = 0, step;
    int err = 0;

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < m->merged.n && !err; i += step) {
        uint64_t stretch = ph_stretch_of(p, m->merged.entry[i].addr);
        bool pages;
        step = group(p, &m->merged, i, &pages);
        if (!pages || home_of(p, stretch) != PH_NO_SLOT || heir_of(p, m, stretch) != PH_NO_SLOT)
            continue;
        err = ph_pool_grow(&fresh, &capacity, n + 1, sizeof(*fresh));
        if (!err)
            err = ph_extent_take(p, PH_EXTENT_TAKEN, false, &fresh[n].slot);
        if (!err)
            fresh[n++].stretch = stretch;
    }
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < n && !err; i++)
        err = zero_table(p, m, fresh[i].slot);
    if (n && !err && ph_tuning.wrong != PH_WRONG_EARLY_NAME)
        err = ph_pool_sync(p);
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < n; i++) {
        struct ph_extent *e = &p->extent[fresh[i].slot];
        if (!err)
            err = ph_extent_name(p, fresh[i].slot, PH_SLOT_HOME, fresh[i].stretch);
        if (!err) {
            e->role = PH_EXTENT_HOME;
            e->stretch = fresh[i].stretch;
            named++;
        } else if (i == named) {
            /* Its slot may or may not say home by now. Say no, or leave it alone. */
            if (ph_extent_name(p, fresh[i].slot, PH_SLOT_NONE, 0) == 0)
                e->role = PH_EXTENT_FREE;
            named = n;
        } else {
            e->role = PH_EXTENT_FREE;
        }
    }
    pthread_mutex_unlock(&p->lock);
    free(fresh);
    return err;
}

/* Blocks of extents that nobody uses: a new home takes one of these, and gives back what it
 * has. In pages. */
static uint64_t spare_pages(const struct ph_pool *p)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role == PH_EXTENT_FREE)
            n += (uint64_t)__builtin_popcount(~e->holes & PH_ALL_SEGMENTS) *
                 ph_segment_pages(&p->super);
    }
    return n;
}

/* Whether the disk has the blocks that going home takes. Where it has them for all of the log
 * (S5) nobody looks closer. Else a migration that cannot end would take what the epochs need
 * that make it superfluous. */
static int check_room(struct ph_pool *p, struct migration *m)
{
    uint64_t pages = 0, fresh = 0, spare;
    size_t step;
    bool any;
    int err;

    pthread_mutex_lock(&p->lock);
    err = ph_room_allows(p, 0);
    spare = spare_pages(p);
    pthread_mutex_unlock(&p->lock);
    if (err != PH_EFULL)
        return err;
    err = 0;
    for (size_t i = 0; i < m->merged.n && !err; i += step) {
        const struct ph_entry_pm *e = &m->merged.entry[i];
        uint64_t stretch = ph_stretch_of(p, e->addr);
        step = group(p, &m->merged, i, &any);
        pthread_mutex_lock(&p->lock);
        uint32_t heir = heir_of(p, m, stretch), home = home_of(p, stretch);
        pthread_mutex_unlock(&p->lock);
        if (heir == PH_NO_SLOT && home != PH_NO_SLOT)
            err = ph_home_table(p, home, m->table);
        for (size_t k = 0; k < step && !err; k++) {
            if (!e[k].offset)
                continue;
            if (heir != PH_NO_SLOT)
                pages += !ph_is_at_home(p, heir, &e[k]);
            else if (home == PH_NO_SLOT)
                fresh++;
            else
                pages += ph_sum_is_zero(m->table[(e[k].addr - stretch) / PH_PAGE]);
        }
        if (any && heir == PH_NO_SLOT && home == PH_NO_SLOT)
            fresh += ph_table_pages(&p->super);
    }
    pages += fresh > spare ? fresh - spare : 0;
    return err ? err : ph_io_space(&p->io, pages * PH_PAGE);
}

static int check_stop(const struct ph_pool *p)
{
    return p->stop ? PH_EINTR : 0;
}

/* Copy entries [0, n), consecutive in address, at most a chunk, to @p offset. */
static int copy_run(struct ph_pool *p, struct migration *m, const struct ph_entry_pm *e,
                    size_t n, uint64_t offset)
{
    int err = check_stop(p);

    for (size_t i = 0, k; i < n && !err; i += k) {
        for (k = 1; i + k < n && e[i + k].offset == e[i].offset + k * PH_PAGE; k++)
            ;
        err = ph_io_read(&p->io, m->buffer + i * PH_PAGE, k * PH_PAGE, e[i].offset);
    }
    return err ? err : ph_io_write(&p->io, m->buffer, n * PH_PAGE, offset);
}

/* Step 3, for the @p n entries at @p e, all of the stretch that m->table and, in future, @p
 * slot are of. @p whole: the table is not in that slot yet. */
static int bring_home(struct ph_pool *p, struct migration *m, const struct ph_entry_pm *e,
                      size_t n, uint32_t slot, bool whole)
{
    const uint32_t per_page = (uint32_t)(PH_PAGE / sizeof(struct ph_sum_pm));
    const uint64_t base = p->extent[slot].offset;
    uint32_t first = 0, last = ph_table_pages(&p->super) - 1, page;
    bool empty = true, lost = whole; /* an heir has the blocks that its extent had */
    uint64_t more = 0;
    int err = 0;

    for (size_t i = 0, k; i < n && !err; i += k) {
        k = 1;
        if (!e[i].offset || ph_is_at_home(p, slot, &e[i]))
            continue;
        while (i + k < n && k < PH_IO_CHUNK / PH_PAGE && e[i + k].offset &&
               e[i + k].addr == e[i].addr + k * PH_PAGE && !ph_is_at_home(p, slot, &e[i + k]))
            k++;
        err = copy_run(p, m, e + i, k, ph_home_place(p, slot, e[i].addr));
        m->migrated += k;
    }
    if (err)
        return err;
    for (size_t i = 0; i < n; i++) {
        struct ph_sum_pm *s = &m->table[(e[i].addr - p->extent[slot].stretch) / PH_PAGE];
        more += (uint64_t)(e[i].offset != 0) - !ph_sum_is_zero(*s);
        lost = lost || !e[i].offset;
        *s = e[i].offset ? e[i].sum : (struct ph_sum_pm){0, 0};
    }
    if (n && (!whole || p->extent[slot].blank)) {
        first = (uint32_t)((e[0].addr - p->extent[slot].stretch) / PH_PAGE) / per_page;
        last = (uint32_t)((e[n - 1].addr - p->extent[slot].stretch) / PH_PAGE) / per_page;
    }
    p->extent[slot].blank = false;
    page = last - first + 1;
    err = ph_io_write(&p->io, m->table + first * per_page, page * PH_PAGE,
                      base + first * PH_PAGE);
    pthread_mutex_lock(&p->lock);
    *(whole ? &m->heir_pages : &p->root.home_pages) += err ? 0 : more;
    p->extent[slot].lost |= lost;
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->super.stretch_pages && empty; i++)
        empty = ph_sum_is_zero(m->table[i]);
    if (empty)
        m->emptied[m->nemptied++] = slot;
    return err;
}

/* Step 3, for the @p n entries at @p e, all of the stretch whose home changes: those, and what
 * the old home has beyond them. */
static int move_home(struct ph_pool *p, struct migration *m, const struct ph_entry_pm *e,
                     size_t n, uint32_t home, uint32_t heir)
{
    size_t k = 0, i = 0;
    int err = 0;

    if (!m->whole)
        m->whole = malloc(p->super.stretch_pages * sizeof(*m->whole));
    if (!m->whole)
        return PH_ENOMEM;
    if (home != PH_NO_SLOT)
        err = ph_home_table(p, home, m->table);
    else
        memset(m->table, 0, ph_table_pages(&p->super) * PH_PAGE);
    for (uint32_t page = 0; page < p->super.stretch_pages && !err; page++) {
        uint64_t addr = p->extent[heir].stretch + page * PH_PAGE;
        if (i < n && e[i].addr == addr)
            m->whole[k++] = e[i++];
        else if (!ph_sum_is_zero(m->table[page]))
            m->whole[k++] =
                (struct ph_entry_pm){addr, ph_home_place(p, home, addr), m->table[page]};
    }
    return err ? err : bring_home(p, m, m->whole, k, heir, true);
}

static int bring_all_home(struct ph_pool *p, struct migration *m)
{
    int err = 0;
    size_t step, change = 0;

    for (size_t i = 0; i < m->merged.n && !err && !(err = check_stop(p)); i += step) {
        const struct ph_entry_pm *e = &m->merged.entry[i];
        bool pages;
        uint32_t slot;
        step = group(p, &m->merged, i, &pages);
        if (change < m->changes &&
            p->extent[m->change[change].heir].stretch == ph_stretch_of(p, e->addr)) {
            err = move_home(p, m, e, step, m->change[change].home, m->change[change].heir);
            change++;
            continue;
        }
        pthread_mutex_lock(&p->lock);
        slot = home_of(p, ph_stretch_of(p, e->addr));
        pthread_mutex_unlock(&p->lock);
        if (slot == PH_NO_SLOT) {
            err = pages ? PH_EINTERNAL : 0;
            continue;
        }
        err = ph_home_table(p, slot, m->table);
        if (!err)
            err = bring_home(p, m, e, step, slot, false);
    }
    return err;
}

/* Let the slots of the heirs say home: once they may, they are (P11). A failure is sticky, for
 * nobody can tell what the slots say then. */
static int change_homes(struct ph_pool *p, const struct migration *m)
{
    int err = 0;

    if (!m->changes)
        return 0;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < m->changes && !err; i++) {
        struct ph_extent *e = &p->extent[m->change[i].heir];
        err = ph_extent_name(p, m->change[i].heir, PH_SLOT_HOME, e->stretch);
        if (err)
            break;
        e->role = PH_EXTENT_HOME;
        e->heir = false;
        e->used = 0;
        memset(e->last_epoch, 0, sizeof(e->last_epoch));
        if (m->change[i].home != PH_NO_SLOT)
            p->extent[m->change[i].home].role = PH_EXTENT_OLD;
    }
    if (err) {
        p->broken = PH_EIO;
        err = ph_pool_fail(p, PH_EIO, "naming a new home");
    }
    pthread_mutex_unlock(&p->lock);
    return err ? err : ph_pool_sync(p);
}

/* Let the slots of old homes say so no more. @pre lock held. */
static int unname_old(struct ph_pool *p)
{
    uint32_t n = 0;
    int err = 0;

    for (uint32_t slot = 0; slot < p->super.slot_count && !err; slot++)
        if (p->extent[slot].role == PH_EXTENT_OLD) {
            err = ph_extent_name(p, slot, PH_SLOT_NONE, 0);
            n++;
        }
    if (n && !err && ph_tuning.wrong != PH_WRONG_TWO_HOMES)
        err = ph_pool_sync_locked(p);
    return err;
}

/* @pre lock held; H has risen, durably. */
static void free_old(struct ph_pool *p)
{
    for (uint32_t slot = 0; slot < p->super.slot_count && !p->views; slot++)
        if (p->extent[slot].role == PH_EXTENT_OLD)
            p->extent[slot].role = PH_EXTENT_FREE;
}

/* What went home is read by a recovery at most. In the page cache it would be in the program's
 * way; and a page that is written into a larger folio there counts as all of it. */
static void forget_cached(struct ph_pool *p, const struct migration *m)
{
    bool pages;

    for (size_t i = 0; i < m->merged.n; i += group(p, &m->merged, i, &pages)) {
        uint64_t stretch = ph_stretch_of(p, m->merged.entry[i].addr);
        pthread_mutex_lock(&p->lock);
        uint32_t slot = home_of(p, stretch);
        pthread_mutex_unlock(&p->lock);
        if (slot != PH_NO_SLOT)
            ph_io_forget(&p->io, p->extent[slot].offset, p->super.extent_pages * PH_PAGE);
    }
}

static int advance(struct ph_pool *p, struct migration *m)
{
    int err;

    if (p->root.oldest < m->oldest)
        p->root.oldest = m->oldest;
    p->root.home_epoch = m->to;
    p->root.home_pages += m->heir_pages;
    p->epochs -= m->epochs;
    memmove(p->epoch, p->epoch + m->epochs, p->epochs * sizeof(*p->epoch));
    ph_root_set_recent(p);
    err = ph_tuning.wrong == PH_WRONG_EARLY_REUSE ? ph_root_write_lazily(p)
                                                  : ph_root_write_both(p);
    if (!err)
        ph_room_retire(p);
    p->pages_migrated += m->migrated;
    return err;
}

/* Let the slots of stretches without pages say home no more: an extent without a home page is
 * as good as none, so that may be durable before H rises, but not after (P7). @return how many.
 */
static uint32_t unname_empty(struct ph_pool *p, const struct migration *m)
{
    uint32_t n = 0;

    while (n < m->nemptied && !ph_extent_name(p, m->emptied[n], PH_SLOT_NONE, 0))
        n++;
    return n; /* the others stay empty homes */
}

/* Steps 5 and 6. @pre lock held. */
static int finish(struct ph_pool *p, struct migration *m)
{
    bool late = ph_tuning.wrong == PH_WRONG_LATE_UNNAME;
    uint32_t unnamed = late ? 0 : unname_empty(p, m);
    int err = unname_old(p);

    if (!err)
        err = advance(p, m);
    if (!err)
        free_old(p);
    if (!err && late)
        unnamed = unname_empty(p, m);
    for (uint32_t i = 0; i < unnamed && !err; i++)
        p->extent[m->emptied[i]].role = PH_EXTENT_FREE;
    return err;
}

int ph_home_migrate(struct ph_pool *p)
{
    struct migration m = {0};
    int err = 0;

    pthread_mutex_lock(&p->lock);
    if (p->broken)
        err = p->broken;
    else if (ph_home_excess(p) == 0) {
        pthread_mutex_unlock(&p->lock);
        return 0;
    }
    if (!err)
        err = retire(p, &m);
    pthread_mutex_unlock(&p->lock);
    if (err)
        return err;
    m.table = aligned_alloc(PH_PAGE, ph_table_pages(&p->super) * PH_PAGE);
    m.buffer = aligned_alloc(PH_PAGE, PH_IO_CHUNK);
    m.emptied = malloc(p->super.slot_count * sizeof(*m.emptied));
    if (!m.table || !m.buffer || !m.emptied)
        err = PH_ENOMEM;
    if (!err)
        err = load_all(p, &m);
    if (!err)
        err = choose_heirs(p, &m);
    if (!err)
        err = check_room(p, &m);
    if (!err)
        err = settle_stretches(p, &m);
    if (!err && ph_tuning.wrong == PH_WRONG_EARLY_HEIR)
        err = change_homes(p, &m);
    if (!err)
        err = bring_all_home(p, &m);
    if (!err && ph_tuning.wrong != PH_WRONG_NO_HOME_BARRIER)
        err = ph_pool_sync(p);
    if (!err && ph_tuning.wrong != PH_WRONG_EARLY_HEIR)
        err = change_homes(p, &m);
    if (!err) {
        pthread_mutex_lock(&p->lock);
        err = finish(p, &m);
        pthread_mutex_unlock(&p->lock);
    }
    if (!err)
        forget_cached(p, &m);
    if (!err) {
        ph_room_punch(p);
        ph_home_shrink(p);
    }
    ph_index_free(&m.merged);
    free(m.change);
    free(m.whole);
    free(m.table);
    free(m.buffer);
    free(m.emptied);
    return err;
}
