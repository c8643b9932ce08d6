/* SPDX-License-Identifier: MIT */
/*
 * pool_home.c - migration: from the log to the home image
 *
 * Left alone, the log would grow for ever. Migration takes all epochs but the kept ones off
 * it: it merges their indexes, writes the newest version of each page to its place at home, in
 * address order, and then the log's extents that no other epoch uses are free. In steps:
 *
 *   1  root, both records: O = the oldest epoch that stays            (P3: retire)
 *   2  extents for new stretches: zero tables, sync, name the slots    (P7)
 *   3  pages and table entries, stretch by stretch
 *   4  sync                                                            (P4)
 *   5  slots of stretches without pages say none                       (P7)
 *      root, both records: H = the newest epoch that went home         (P5)
 *   6  free the log's segments, and the extents of those stretches;
 *      segments that the log has not needed become holes
 *
 * A crash or an error anywhere leaves every epoch from O on readable, since the log is whole
 * until 5; migration starts again from 1. Checksums are carried over, not computed anew, so a
 * page that was damaged in the log stays recognisable.
 *
 * When: the log beyond the kept epochs exceeds 3/10 of the home image (so that a page that goes
 * home stands for more than one that was appended), at least ph_tuning.trigger_bytes, or
 * ph_tuning.trigger_epochs epochs (which bounds the walk at opening); or the log finds no
 * segment. The writer waits when the log is a quarter and an epoch over that, so the file takes
 * at most home + kept epochs + 5/4 of the trigger + the largest epoch + the one in progress +
 * files.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

struct ph_tuning ph_tuning = {
    .stretch_pages = PH_STRETCH_PAGES,
    .trigger_bytes = UINT64_C(64) << 20,
    .trigger_epochs = 64,
    .first_run = 128,
    .write_max = UINT64_C(8) << 20,
    .ahead = 2,
};

/* One migration under way. */
struct migration {
    uint64_t to, oldest;    /* becomes H, O */
    size_t epochs;          /* how many leave the log */
    struct ph_index merged; /* what goes home */
    struct ph_sum_pm *table;
    char *buffer; /* PH_IO_CHUNK, page-aligned */
    int64_t home_pages;
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

static uint64_t trigger(const struct ph_pool *p)
{
    uint64_t part = p->root.home_pages * 3 / 10 * PH_PAGE;

    return part > ph_tuning.trigger_bytes ? part : ph_tuning.trigger_bytes;
}

/* Epochs that may leave the log. While somebody holds a view, none: see pool_view.c. */
static size_t excess(const struct ph_pool *p)
{
    if (p->views)
        return 0;
    return p->epochs > p->super.keep ? p->epochs - p->super.keep : 0;
}

static uint64_t backlog(const struct ph_pool *p)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < excess(p); i++)
        bytes += p->epoch[i].info.bytes;
    return bytes;
}

bool ph_home_due(const struct ph_pool *p)
{
    return excess(p) > ph_tuning.trigger_epochs || backlog(p) > trigger(p);
}

bool ph_home_behind(const struct ph_pool *p)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < excess(p); i++)
        if (p->epoch[i].info.bytes > largest)
            largest = p->epoch[i].info.bytes;
    return excess(p) > 4 * (size_t)ph_tuning.trigger_epochs ||
           backlog(p) > trigger(p) / 4 * 5 + largest;
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

    m->epochs = excess(p);
    m->to = p->epoch[m->epochs - 1].info.number;
    m->oldest = p->epoch[m->epochs].info.number;
    if (p->root.oldest < m->oldest && ph_tuning.wrong != PH_WRONG_NO_RETIRE) {
        p->root.oldest = m->oldest;
        err = ph_root_write_both(p);
    }
    return err;
}

static int load(struct ph_pool *p, struct migration *m)
{
    struct ph_index *index = calloc(m->epochs, sizeof(*index));
    struct ph_header_pm *h = malloc(sizeof(*h));
    int err = index && h ? 0 : PH_ENOMEM;

    for (size_t i = 0; i < m->epochs && !err; i++) {
        pthread_mutex_lock(&p->lock);
        struct ph_epoch e = p->epoch[i]; /* only migration takes epochs off the list's start */
        pthread_mutex_unlock(&p->lock);
        err = ph_header_load(p, e.header, e.info.number, h);
        if (!err)
            err = ph_index_load(p, h, &index[i]);
    }
    if (!err) {
        err = ph_index_merge(index, m->epochs, &m->merged);
    } else if (index) {
        for (size_t i = 0; i < m->epochs; i++)
            ph_index_free(&index[i]);
    }
    free(index);
    free(h);
    return err;
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
    ph_extent_clear(p, slot);
    memset(m->table, 0, ph_table_pages(&p->super) * PH_PAGE);
    return ph_io_write(&p->io, m->table, ph_table_pages(&p->super) * PH_PAGE,
                       p->extent[slot].offset);
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
        if (!pages || home_of(p, stretch) != PH_NO_SLOT)
            continue;
        err = ph_pool_grow(&fresh, &capacity, n + 1, sizeof(*fresh));
        if (!err)
            err = ph_extent_take(p, PH_EXTENT_TAKEN, &fresh[n].slot);
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

/* Copy entries [0, n), consecutive in address, at most a chunk, to @p offset. */
static int copy_run(struct ph_pool *p, struct migration *m, const struct ph_entry_pm *e,
                    size_t n, uint64_t offset)
{
    int err = 0;

    for (size_t i = 0, k; i < n && !err; i += k) {
        for (k = 1; i + k < n && e[i + k].offset == e[i].offset + k * PH_PAGE; k++)
            ;
        err = ph_io_read(&p->io, m->buffer + i * PH_PAGE, k * PH_PAGE, e[i].offset);
    }
    return err ? err : ph_io_write(&p->io, m->buffer, n * PH_PAGE, offset);
}

/* Whether the page lies at its place already: see pool_first.c. */
static bool is_home(const struct ph_pool *p, uint32_t slot, const struct ph_entry_pm *e)
{
    return e->offset == ph_home_place(p, slot, e->addr);
}

/* Step 3, for the @p n entries at @p e, all of the stretch whose home is @p slot. */
static int bring_home(struct ph_pool *p, struct migration *m, const struct ph_entry_pm *e,
                      size_t n, uint32_t slot)
{
    const uint32_t per_page = (uint32_t)(PH_PAGE / sizeof(struct ph_sum_pm));
    const uint64_t base = p->extent[slot].offset;
    uint32_t first, last, page;
    bool empty = true;
    int err = ph_home_table(p, slot, m->table);

    for (size_t i = 0, k; i < n && !err; i += k) {
        k = 1;
        if (!e[i].offset || is_home(p, slot, &e[i]))
            continue;
        while (i + k < n && k < PH_IO_CHUNK / PH_PAGE && e[i + k].offset &&
               e[i + k].addr == e[i].addr + k * PH_PAGE && !is_home(p, slot, &e[i + k]))
            k++;
        err = copy_run(p, m, e + i, k, ph_home_place(p, slot, e[i].addr));
        m->migrated += k;
    }
    if (err)
        return err;
    for (size_t i = 0; i < n; i++) {
        struct ph_sum_pm *s = &m->table[(e[i].addr - p->extent[slot].stretch) / PH_PAGE];
        m->home_pages += (e[i].offset != 0) - !ph_sum_is_zero(*s);
        *s = e[i].offset ? e[i].sum : (struct ph_sum_pm){0, 0};
    }
    first = (uint32_t)((e[0].addr - p->extent[slot].stretch) / PH_PAGE) / per_page;
    last = (uint32_t)((e[n - 1].addr - p->extent[slot].stretch) / PH_PAGE) / per_page;
    page = last - first + 1;
    err = ph_io_write(&p->io, m->table + first * per_page, page * PH_PAGE,
                      base + first * PH_PAGE);
    for (uint32_t i = 0; i < p->super.stretch_pages && empty; i++)
        empty = ph_sum_is_zero(m->table[i]);
    if (empty)
        m->emptied[m->nemptied++] = slot;
    return err;
}

static int bring_all_home(struct ph_pool *p, struct migration *m)
{
    int err = 0;
    size_t step;

    for (size_t i = 0; i < m->merged.n && !err; i += step) {
        const struct ph_entry_pm *e = &m->merged.entry[i];
        bool pages;
        uint32_t slot;
        step = group(p, &m->merged, i, &pages);
        pthread_mutex_lock(&p->lock);
        slot = home_of(p, ph_stretch_of(p, e->addr));
        pthread_mutex_unlock(&p->lock);
        if (slot != PH_NO_SLOT)
            err = bring_home(p, m, e, step, slot);
        else if (pages)
            err = PH_EINTERNAL;
    }
    return err;
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
    p->root.home_pages = (uint64_t)((int64_t)p->root.home_pages + m->home_pages);
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
    int err = advance(p, m);

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
    else if (excess(p) == 0) {
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
        err = load(p, &m);
    if (!err)
        err = settle_stretches(p, &m);
    if (!err)
        err = bring_all_home(p, &m);
    if (!err && ph_tuning.wrong != PH_WRONG_NO_HOME_BARRIER)
        err = ph_pool_sync(p);
    if (!err) {
        pthread_mutex_lock(&p->lock);
        err = finish(p, &m);
        pthread_mutex_unlock(&p->lock);
    }
    if (!err)
        forget_cached(p, &m);
    if (!err)
        ph_room_punch(p);
    ph_index_free(&m.merged);
    free(m.table);
    free(m.buffer);
    free(m.emptied);
    return err;
}

/* ---- the background thread ------------------------------------------------------ */

static bool wants_extent(const struct ph_pool *p)
{
    return !p->grow_failed && !p->broken && !p->pop_lost &&
           ph_extent_count(p, PH_EXTENT_FREE) < ph_tuning.ahead;
}

static void *background(void *arg)
{
    struct ph_pool *p = arg;

    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        if (p->migrate_now) {
            p->migrating = true;
            pthread_mutex_unlock(&p->lock);
            int err = ph_home_migrate(p);
            pthread_mutex_lock(&p->lock);
            p->migrating = p->migrate_now = false;
            p->migrate_err = err;
            p->migrations++;
            pthread_cond_broadcast(&p->done);
        } else if (p->awake && wants_extent(p)) {
            uint32_t slot;
            p->grow_failed = ph_extent_grow(p, &slot) != 0;
        } else {
            pthread_cond_wait(&p->wake, &p->lock);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void ph_home_wake(struct ph_pool *p)
{
    if (!p->thread_runs)
        return;
    p->awake = true;
    p->grow_failed = false;
    if (ph_home_due(p))
        p->migrate_now = true;
    pthread_cond_signal(&p->wake);
}

int ph_home_force(struct ph_pool *p)
{
    uint64_t before = p->migrations;
    int err;

    if (excess(p) == 0)
        return PH_ENOEPOCH;
    if (!p->thread_runs) {
        pthread_mutex_unlock(&p->lock);
        err = ph_home_migrate(p);
        pthread_mutex_lock(&p->lock);
        return err;
    }
    p->migrate_now = true;
    pthread_cond_signal(&p->wake);
    while (p->migrations == before)
        pthread_cond_wait(&p->done, &p->lock);
    return p->migrate_err;
}

int ph_home_start(struct ph_pool *p)
{
    if (ph_tuning.single_threaded)
        return 0;
    if (pthread_create(&p->thread, NULL, background, p))
        return PH_ENOMEM;
    p->thread_runs = true;
    return 0;
}

void ph_home_stop(struct ph_pool *p)
{
    if (!p->thread_runs)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    p->thread_runs = false;
}
