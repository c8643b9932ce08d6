/* SPDX-License-Identifier: MIT */
/*
 * pool_root.c - root records, and the chain of epochs they reach
 *
 * There are two root records. The one with the greater sequence number that is intact is the
 * state of the pool; writing always replaces the other one, so that a torn write leaves the
 * state as it was. All volatile state (list of epochs, extents, filter) is rebuilt from the
 * root by ph_root_load, at opening and after going back to an older epoch, by the same code.
 *
 * Damage: an epoch is intact only if its own header and index and those of all log epochs
 * before it are. The list ends before the first that is not; recent[] in the root lets the walk
 * step over damaged headers at the new end.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

static uint64_t place(const struct ph_pool *p, uint64_t seq)
{
    return p->super.self + PH_PAGE * (1 + (seq & 1));
}

static int write_root(struct ph_pool *p, bool sync)
{
    int err;

    if (p->broken)
        return p->broken;
    p->root.seq++;
    p->root.sum = ph_sum(&p->root, offsetof(struct ph_root_pm, sum));
    err = ph_io_write(&p->io, &p->root, sizeof(p->root), place(p, p->root.seq));
    if (!err && sync)
        err = ph_io_sync(&p->io);
    if (err) {
        /* Nobody can tell which of the two the disk holds now. */
        p->broken = PH_EIO;
        return ph_pool_fail(p, PH_EIO, "writing the root record");
    }
    return 0;
}

int ph_root_write(struct ph_pool *p)
{
    return write_root(p, true);
}

int ph_root_write_lazily(struct ph_pool *p)
{
    return write_root(p, false);
}

int ph_root_write_both(struct ph_pool *p)
{
    int err = ph_root_write(p);

    return err ? err : ph_root_write(p);
}

void ph_root_set_recent(struct ph_pool *p)
{
    memset(p->root.recent, 0, sizeof(p->root.recent));
    for (size_t i = 0; i < PH_RECENT_MAX && i < p->epochs; i++) {
        const struct ph_epoch *e = &p->epoch[p->epochs - 1 - i];
        p->root.recent[i] = (struct ph_recent_pm){e->info.number, e->header};
    }
}

static bool root_intact(const struct ph_pool *p, const struct ph_root_pm *r, unsigned at)
{
    uint64_t newest = r->recent[0].number;

    if (r->magic != PH_ROOT_MAGIC || (r->seq & 1) != at ||
        memcmp(r->id, p->super.id, sizeof(r->id)) != 0 ||
        !ph_sum_equal(r->sum, ph_sum(r, offsetof(struct ph_root_pm, sum))))
        return false;
    if (newest == 0) /* P2 */
        return r->oldest == 0 && r->home_epoch == 0;
    return r->home_epoch < r->oldest && r->oldest <= newest;
}

int ph_root_read(struct ph_pool *p, struct ph_root_pm *out, bool *settled)
{
    struct ph_root_pm r[2];
    bool ok[2];

    for (unsigned i = 0; i < 2; i++) {
        int err = ph_io_read(&p->io, &r[i], sizeof(r[i]), place(p, i));
        if (err == PH_EIO)
            return err;
        ok[i] = !err && root_intact(p, &r[i], i);
    }
    if (!ok[0] && !ok[1])
        return PH_ECORRUPT;
    unsigned newer = !ok[0] || (ok[1] && r[1].seq > r[0].seq);
    *out = r[newer];
    *settled = ok[0] && ok[1] && r[0].home_epoch == r[1].home_epoch &&
               (r[0].oldest == r[1].oldest || r[!newer].oldest == 0) &&
               r[!newer].recent[0].number <= r[newer].recent[0].number &&
               r[!newer].files <= r[newer].files;
    return 0;
}

static int push_epoch(struct ph_pool *p, uint64_t offset, const struct ph_header_pm *h)
{
    struct ph_epoch *e;

    if (ph_pool_grow(&p->epoch, &p->epoch_capacity, p->epochs + 1, sizeof(*e)))
        return PH_ENOMEM;
    e = &p->epoch[p->epochs++];
    *e = (struct ph_epoch){offset,
                           {.number = h->number,
                            .time = h->time,
                            .pages = h->pages,
                            .bytes = h->bytes,
                            .heir_bytes = h->heir_bytes,
                            .record_size = h->record_size}};
    memcpy(e->info.label, h->label, sizeof(e->info.label));
    return 0;
}

/* List the log's epochs from @p start back to H, newest first. On damage @p bad receives the
 * number of the first epoch that could not be read. */
static int walk(struct ph_pool *p, struct ph_recent_pm start, uint64_t *bad)
{
    struct ph_header_pm h;

    p->epochs = 0;
    while (start.number > p->root.home_epoch) {
        int err = ph_header_load(p, start.header, start.number, &h);
        if (!err)
            err = push_epoch(p, start.header, &h);
        if (err) {
            *bad = start.number;
            return err;
        }
        start = (struct ph_recent_pm){h.prev_number, h.prev_header};
    }
    return 0;
}

static int list_epochs(struct ph_pool *p)
{
    uint64_t bad = UINT64_MAX;
    int err = 0;

    for (size_t i = 0; i < PH_RECENT_MAX && p->root.recent[i].number; i++) {
        if (p->root.recent[i].number >= bad)
            continue; /* depends on the damaged one */
        err = walk(p, p->root.recent[i], &bad);
        if (err != PH_ECORRUPT)
            break;
    }
    if (err)
        return err;
    for (size_t i = 0, j = p->epochs; i + 1 < j; i++) {
        struct ph_epoch e = p->epoch[i];
        p->epoch[i] = p->epoch[--j];
        p->epoch[j] = e;
    }
    return 0;
}

/* Put an epoch's changes into the filter. */
static int apply(struct ph_filter *f, const struct ph_index *index)
{
    for (size_t i = 0; i < index->n; i++) {
        const struct ph_entry_pm *e = &index->entry[i];
        if (e->offset && ph_filter_reserve(f, e->addr))
            return PH_ENOMEM;
        ph_filter_put(f, e->addr, e->offset ? e->sum : (struct ph_sum_pm){0, 0});
    }
    return 0;
}

/* Put what is at home into the filter, and count it: of a migration that was cut short the root
 * knows nothing. */
static int apply_home(struct ph_pool *p)
{
    struct ph_sum_pm *table = malloc(ph_table_pages(&p->super) * PH_PAGE);
    int err = table ? 0 : PH_ENOMEM;

    p->root.home_pages = 0;
    for (uint32_t s = 0; s < p->super.slot_count && !err; s++) {
        if (p->extent[s].role != PH_EXTENT_HOME)
            continue;
        err = ph_home_table(p, s, table);
        for (uint32_t i = 0; i < p->super.stretch_pages && !err; i++) {
            uint64_t addr = p->extent[s].stretch + i * PH_PAGE;
            if (ph_sum_is_zero(table[i]))
                continue;
            p->root.home_pages++;
            err = ph_filter_reserve(&p->filter, addr);
            ph_filter_put(&p->filter, addr, table[i]);
        }
    }
    free(table);
    return err;
}

int ph_root_fill_filter(struct ph_pool *p)
{
    int err = 0;

    if (p->filter_filled)
        return 0;
    ph_filter_free(&p->filter);
    err = apply_home(p);
    for (size_t i = 0; i < p->epochs && !err; i++) {
        struct ph_header_pm h;
        struct ph_index index = {0};
        err = ph_header_load(p, p->epoch[i].header, p->epoch[i].info.number, &h);
        if (!err)
            err = ph_index_load(p, &h, &index);
        if (!err)
            err = apply(&p->filter, &index);
        ph_index_free(&index);
    }
    p->filter_filled = !err;
    return err;
}

void ph_root_forget_indexes(struct ph_pool *p)
{
    for (size_t i = 0; i < p->kept_indexes; i++)
        ph_index_free(&p->kept[i].index);
    free(p->kept);
    p->kept = NULL;
    p->kept_indexes = 0;
}

/* Whoever opens a pool to recover takes a view of it next, which needs the same indexes. */
static void keep(struct ph_pool *p, uint64_t number, struct ph_index *index)
{
    struct ph_kept *bigger = realloc(p->kept, (p->kept_indexes + 1) * sizeof(*bigger));

    if (!bigger)
        return;
    p->kept = bigger;
    p->kept[p->kept_indexes++] = (struct ph_kept){number, *index};
    *index = (struct ph_index){0};
}

bool ph_root_kept_index(struct ph_pool *p, uint64_t number, struct ph_index *out)
{
    for (size_t i = 0; i < p->kept_indexes; i++)
        if (p->kept[i].number == number && p->kept[i].index.n) {
            *out = p->kept[i].index;
            p->kept[i].index = (struct ph_index){0};
            return true;
        }
    return false;
}

/* Check the indexes, and end the list before the first damaged one; while about it, find which
 * extents the log takes. */
static int check_indexes(struct ph_pool *p)
{
    int err = 0;

    ph_root_forget_indexes(p);

    for (size_t i = 0; i < p->epochs; i++) {
        struct ph_epoch *e = &p->epoch[i];
        struct ph_header_pm h;
        struct ph_index index = {0};
        err = ph_header_load(p, e->header, e->info.number, &h);
        if (!err)
            err = ph_index_load(p, &h, &index);
        if (!err)
            err = ph_extent_mark(p, &h, e->header, &index);
        if (!err && p->writable)
            keep(p, e->info.number, &index);
        ph_index_free(&index);
        if (err == PH_ECORRUPT) {
            p->epochs = i;
            return 0;
        }
        if (err)
            return err;
    }
    return 0;
}

/* The newest epoch must have its record; an older one's is checked when it is viewed. */
static int check_newest_record(struct ph_pool *p)
{
    while (p->epochs) {
        struct ph_epoch *e = &p->epoch[p->epochs - 1];
        struct ph_header_pm h;
        void *record = NULL;
        int err = ph_header_load(p, e->header, e->info.number, &h);
        if (!err)
            err = ph_record_load(p, &h, &record);
        free(record);
        if (err != PH_ECORRUPT)
            return err;
        p->epochs--;
    }
    return 0;
}

int ph_root_load(struct ph_pool *p)
{
    bool settled;
    size_t listed;
    int err = ph_root_read(p, &p->root, &settled);

    if (err)
        return err;
    ph_filter_free(&p->filter);
    p->filter_filled = false;
    p->present_known = false;
    p->denses = 0;
    err = ph_extent_load(p);
    if (!err)
        err = list_epochs(p);
    listed = p->epochs;
    if (!err)
        err = check_indexes(p);
    if (!err)
        err = check_newest_record(p);
    if (!err)
        err = ph_extent_settle(p);
    if (err)
        return err;
    if (p->root.recent[0].number &&
        (p->epochs == 0 || p->epoch[p->epochs - 1].info.number < p->root.oldest))
        return PH_ECORRUPT;
    if (p->epochs &&
        (p->epochs < listed || p->epoch[p->epochs - 1].info.number != p->root.recent[0].number))
        settled = false; /* damaged epochs at the end: give them up before going on */
    p->end.slot = PH_NO_SLOT;
    if (p->epochs)
        ph_room_end_at(p, p->epoch[p->epochs - 1].header);
    p->unsettled = !settled;
    return ph_files_load(p);
}

int ph_root_settle(struct ph_pool *p)
{
    int err = 0;

    if (p->unsettled) {
        ph_root_set_recent(p);
        err = ph_root_write_both(p);
        p->unsettled = err != 0;
    }
    return err;
}
