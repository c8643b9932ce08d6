/* SPDX-License-Identifier: MIT */
/*
 * pool_log.c - the epoch in progress: append and commit
 *
 * Pages go to the end of the log as they come, by way of pool_write.c. What the epoch changes
 * in memory (entries, record, which extents it touched) is kept aside until the root record is
 * durable, and only then becomes the pool's state: so aborting is forgetting, and the filter
 * always speaks of the committed epoch.
 *
 *   idle --begin--> open --append, set_present, append_record--> open --commit--> idle
 *                    |  a failure                                  |
 *                    v                                             v
 *                  failed ------------------abort---------------> idle
 *
 * Where the pages go, pool_room.c says.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_PAGES 256

static int failed(struct ph_pool *p, int err)
{
    if (err && !p->writing.failed)
        p->writing.failed = err;
    return err;
}

static int usable(const struct ph_pool *p)
{
    if (!p->writable || !p->writing.number)
        return PH_EUSAGE;
    return p->broken ? p->broken : p->writing.failed;
}

static void reset(struct ph_writing *w)
{
    free(w->entry);
    free(w->again_table.slot);
    free(w->record);
    free(w->span);
    free(w->touched);
    free(w->heir);
    free(w->meta);
    *w = (struct ph_writing){0};
}

int ph_pool_begin(struct ph_pool *p, uint64_t number)
{
    struct ph_writing *w = &p->writing;
    int err = 0;

    if (!p->writable || w->number || number == 0 || number == PH_EPOCH_OPEN)
        return PH_EUSAGE;
    if (p->claimed && !p->broken && (err = ph_pool_make(p)) != 0)
        return err;
    pthread_mutex_lock(&p->lock);
    if (p->broken)
        err = p->broken;
    else if (p->epochs && number <= p->epoch[p->epochs - 1].info.number)
        err = PH_EUSAGE;
    if (!err)
        err = ph_root_settle(p);
    ph_root_forget_indexes(p);
    if (!err)
        err = ph_root_fill_filter(p);
    if (!err) {
        /* The log is bounded: when migration falls behind, wait for it. If it fails, go on
         * while there is room; then append says what is wrong. */
        while (ph_home_behind(p) && ph_home_force(p, false) == 0)
            ;
        *w = (struct ph_writing){.number = number, .start = p->end};
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

/* Have @p n pages written to their places; what lies in a row in both is one request. */
static int queue_pages(struct ph_pool *p, const struct ph_entry_pm *e, const void *const *page,
                       uint64_t n)
{
    int err = 0;

    for (uint64_t i = 0, k; i < n && !err; i += k) {
        const char *from = page[i];
        for (k = 1; i + k < n && page[i + k] == from + k * PH_PAGE &&
                    e[i + k].offset == e[i].offset + k * PH_PAGE;
             k++)
            ;
        err = ph_queue_add(p, from, k * PH_PAGE, e[i].offset);
    }
    return err;
}

/* Place and queue the pages of the last @p n entries, whose offsets are not known yet. */
static int place_pages(struct ph_pool *p, const void *const *page, size_t n)
{
    struct ph_entry_pm *e = p->writing.entry + p->writing.entries - n;
    int err = 0;

    while (n && !err) {
        uint64_t offset, got;
        size_t run;
        bool placed;
        err = ph_heir_place(p, e, n, &run, &placed);
        got = run;
        if (!err && !placed) {
            err = ph_room_take(p, run, &offset, &got);
            for (uint64_t i = 0; i < got && !err; i++)
                e[i].offset = offset + i * PH_PAGE;
        }
        if (err)
            break;
        err = queue_pages(p, e, page, got);
        e += got;
        page += got;
        n -= got;
    }
    return err;
}

/* Whether the page at @p addr, of checksum @p sum, need not be written: it is what the epoch
 * has already, be it from the epoch before. An earlier version that differs dies. */
static bool is_known(struct ph_pool *p, uint64_t addr, struct ph_sum_pm sum)
{
    struct ph_writing *w = &p->writing;
    struct ph_entry_pm *earlier = w->again ? ph_again_find(w, addr) : NULL;

    if (earlier && ph_sum_equal(earlier->sum, sum))
        return true;
    if (earlier)
        earlier->sum = (struct ph_sum_pm){0, 0};
    return ph_sum_equal(sum, ph_filter_get(&p->filter, addr));
}

int ph_pool_append(struct ph_pool *p, const uint64_t *addr, const void *const *page, size_t n,
                   size_t *written)
{
    struct ph_writing *w = &p->writing;
    const void *batch[BATCH_PAGES];
    size_t k = 0, before = w->entries;
    int err = usable(p);

    if (!err)
        err = failed(
            p, ph_pool_grow(&w->entry, &w->entry_capacity, w->entries + n, sizeof(*w->entry)));
    for (size_t i = 0; i < n && !err; i++) {
        struct ph_sum_pm sum = ph_sum_page(page[i]);
        if (addr[i] % PH_PAGE) {
            err = failed(p, PH_EUSAGE);
            break;
        }
        if (is_known(p, addr[i], sum)) {
            p->pages_filtered++;
            continue;
        }
        w->entry[w->entries++] = (struct ph_entry_pm){addr[i], 0, sum};
        if (w->again && (err = failed(p, ph_again_note(w))) != 0)
            break;
        batch[k++] = page[i];
        if (k == BATCH_PAGES) {
            err = failed(p, place_pages(p, batch, k));
            k = 0;
        }
    }
    if (!err && k)
        err = failed(p, place_pages(p, batch, k));
    if (!err)
        p->pages_appended += w->entries - before;
    if (written)
        *written = err ? 0 : w->entries - before;
    return err;
}

int ph_pool_set_present(struct ph_pool *p, const struct ph_page_span *span, size_t n)
{
    struct ph_writing *w = &p->writing;
    int err = usable(p);

    if (err)
        return err;
    if (w->present_set)
        return failed(p, PH_EUSAGE);
    for (size_t i = 0; i < n; i++)
        if (span[i].start % PH_PAGE || span[i].end % PH_PAGE || span[i].start >= span[i].end ||
            (i && span[i].start < span[i - 1].end))
            return failed(p, PH_EUSAGE);
    w->span = malloc(n * sizeof(*span) + 1);
    if (!w->span)
        return failed(p, PH_ENOMEM);
    if (n)
        memcpy(w->span, span, n * sizeof(*span));
    w->spans = n;
    w->present_set = true;
    return 0;
}

int ph_pool_append_record(struct ph_pool *p, const void *bytes, size_t size)
{
    struct ph_writing *w = &p->writing;
    int err = usable(p);

    if (err || size == 0)
        return err;
    err = ph_pool_grow(&w->record, &w->record_capacity, w->record_size + size, 1);
    if (err)
        return failed(p, err);
    memcpy(w->record + w->record_size, bytes, size);
    w->record_size += size;
    return 0;
}

struct forgetting {
    struct ph_pool *p;
    struct ph_writing *w;
    size_t appended; /* entries of appended pages, sorted: these are not forgotten */
    uint64_t looks;  /* pages that may still be looked at one by one */
};

static bool within(const struct ph_writing *w, uint64_t addr)
{
    size_t low = 0, high = w->spans;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (addr < w->span[mid].start)
            high = mid;
        else if (addr >= w->span[mid].end)
            low = mid + 1;
        else
            return true;
    }
    return false;
}

static bool was_appended(const struct forgetting *f, uint64_t addr)
{
    size_t low = 0, high = f->appended;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (addr < f->w->entry[mid].addr)
            high = mid;
        else if (addr > f->w->entry[mid].addr)
            low = mid + 1;
        else
            return true;
    }
    return false;
}

static int forget(void *arg, uint64_t addr)
{
    struct forgetting *f = arg;
    struct ph_writing *w = f->w;

    if (within(w, addr) || was_appended(f, addr))
        return 0;
    if (ph_pool_grow(&w->entry, &w->entry_capacity, w->entries + 1, sizeof(*w->entry)))
        return PH_ENOMEM;
    w->entry[w->entries++] = (struct ph_entry_pm){.addr = addr};
    return 0;
}

/* Forget what lies in [start, end). @return 1 when that takes more looks than are left. */
static int forget_range(struct forgetting *f, uint64_t start, uint64_t end)
{
    if ((end - start) / PH_PAGE > f->looks)
        return 1;
    f->looks -= (end - start) / PH_PAGE;
    for (uint64_t addr = start; addr < end; addr += PH_PAGE)
        if (!ph_sum_equal(ph_filter_get(&f->p->filter, addr), (struct ph_sum_pm){0, 0})) {
            int err = forget(f, addr);
            if (err)
                return err;
        }
    return 0;
}

/* Look only where the last epoch had something and this one has not: the cost follows the
 * change. @return 1 when looking everywhere is cheaper. */
static int forget_difference(struct forgetting *f)
{
    const struct ph_pool *p = f->p;
    const struct ph_page_span *now = f->w->span, *end = now + f->w->spans;
    int err = 0;

    for (size_t i = 0; i < p->presents && !err; i++) {
        uint64_t at = p->present[i].start, stop = p->present[i].end;
        while (now < end && now->end <= at)
            now++;
        for (const struct ph_page_span *s = now; at < stop && !err; s++) {
            uint64_t gap_end = s < end && s->start < stop ? s->start : stop;
            if (gap_end > at)
                err = forget_range(f, at, gap_end);
            at = s < end && s->start < stop ? s->end : stop;
        }
    }
    return err;
}

/* Whether all that was appended lies within what is present. */
static bool appended_within(const struct ph_writing *w, size_t appended)
{
    for (size_t i = 0; i < appended; i++)
        if (!within(w, w->entry[i].addr))
            return false;
    return true;
}

static int forget_absent(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;
    struct forgetting f = {p, w, w->entries, ph_filter_bytes(&p->filter) / 16};
    int err = p->present_known ? forget_difference(&f) : 1;

    w->all_within = appended_within(w, f.appended);
    if (err == 1) {
        w->entries = f.appended;
        err = ph_filter_each(&p->filter, forget, &f);
    }
    return err;
}

/* Of pages that were appended again only the last versions count, where they are present. */
static void drop_versions(struct ph_writing *w)
{
    for (size_t i = 0; i < w->entries && w->present_set; i++)
        if (!within(w, w->entry[i].addr))
            w->entry[i].sum = (struct ph_sum_pm){0, 0};
    ph_again_drop(w);
}

/* Complete the index: sorted, with the pages that are forgotten; and make sure that the filter
 * can take it, since nothing may fail once the root record is written. */
static int complete_index(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;
    int err;

    if (w->again)
        drop_versions(w);
    err = ph_index_sort(w->entry, w->entries);
    if (!err && w->present_set) {
        err = forget_absent(p);
        if (!err)
            err = ph_index_sort(w->entry, w->entries);
    }
    for (size_t i = 0; i < w->entries && !err; i++)
        if (w->entry[i].offset)
            err = ph_filter_reserve(&p->filter, w->entry[i].addr);
    return err;
}

static int add_piece(struct ph_header_pm *h, uint64_t offset, uint64_t size)
{
    struct ph_piece_pm *last = h->pieces ? &h->piece[h->pieces - 1] : NULL;

    if (last && last->offset + last->size == offset) {
        last->size += size;
        return 0;
    }
    if (h->pieces == PH_PIECES_MAX)
        return PH_EPOOLSIZE;
    h->piece[h->pieces++] = (struct ph_piece_pm){offset, size};
    return 0;
}

/* Queue the blob of @p size bytes that lies at @p blob, in pieces. @p blob has room up to a
 * whole page. */
static int queue_blob(struct ph_pool *p, struct ph_header_pm *h, const char *blob,
                      uint64_t size)
{
    int err = 0;

    while (size && !err) {
        uint64_t want = (size + PH_PAGE - 1) / PH_PAGE, offset, got, part;
        err = ph_room_take(p, want, &offset, &got);
        if (err)
            break;
        part = got * PH_PAGE < size ? got * PH_PAGE : size;
        err = add_piece(h, offset, part);
        for (uint64_t at = 0; at < got * PH_PAGE && !err; at += ph_tuning.write_max) {
            uint64_t n = got * PH_PAGE - at;
            err = ph_queue_add(p, blob + at, n < ph_tuning.write_max ? n : ph_tuning.write_max,
                               offset + at);
        }
        blob += part;
        size -= part;
    }
    return err;
}

static void fill_header(const struct ph_pool *p, struct ph_header_pm *h, const char *label,
                        uint64_t time)
{
    const struct ph_writing *w = &p->writing;

    *h = (struct ph_header_pm){.magic = PH_HEADER_MAGIC,
                               .version = PH_POOL_VERSION,
                               .id = {p->super.id[0], p->super.id[1]},
                               .number = w->number,
                               .time = time,
                               .entries = w->entries,
                               .record_size = w->record_size};
    for (size_t i = 0; i < w->entries; i++)
        h->pages += w->entry[i].offset != 0;
    if (p->epochs) {
        h->prev_number = p->epoch[p->epochs - 1].info.number;
        h->prev_header = p->epoch[p->epochs - 1].header;
    }
    if (label)
        strncpy(h->label, label, sizeof(h->label) - 1);
}

/* Queue index, record and header. */
static int queue_meta(struct ph_pool *p, const char *label, uint64_t time,
                      struct ph_header_pm **header, uint64_t *offset)
{
    struct ph_writing *w = &p->writing;
    uint64_t index_size = w->entries * sizeof(*w->entry), size = index_size + w->record_size;
    uint64_t room = (size + PH_PAGE - 1) / PH_PAGE * PH_PAGE, got;
    struct ph_header_pm *h;
    char *blob = aligned_alloc(PH_PAGE, room + PH_PAGE);
    int err;

    if (!blob)
        return PH_ENOMEM;
    w->meta = blob;
    if (index_size)
        memcpy(blob, w->entry, index_size);
    if (w->record_size)
        memcpy(blob + index_size, w->record, w->record_size);
    memset(blob + size, 0, room - size);
    *header = h = (struct ph_header_pm *)(blob + room);
    pthread_mutex_lock(&p->lock);
    fill_header(p, h, label, time);
    pthread_mutex_unlock(&p->lock);
    h->index_sum = ph_sum(blob, index_size);
    h->record_sum = ph_sum(blob + index_size, w->record_size);
    err = queue_blob(p, h, blob, size);
    if (!err)
        err = ph_room_take(p, 1, offset, &got);
    if (err)
        return err;
    h->bytes = w->log_pages * PH_PAGE;
    h->heir_bytes = w->heir_pages * PH_PAGE;
    h->sum = ph_sum(h, offsetof(struct ph_header_pm, sum));
    return ph_queue_add(p, h, sizeof(*h), *offset);
}

/* The epoch is durable: make it the pool's state. Cannot fail. */
static void adopt(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    ph_room_adopt(p);
    ph_heir_adopt(p);
    for (size_t i = 0; i < w->entries; i++)
        ph_filter_put(&p->filter, w->entry[i].addr,
                      w->entry[i].offset ? w->entry[i].sum : (struct ph_sum_pm){0, 0});
    free(p->present);
    p->present = w->span;
    p->presents = w->spans;
    p->present_known = w->present_set && w->all_within;
    w->span = NULL;
    reset(w);
}

/* Write the root record that names the new epoch (P1: all that it reaches is durable). */
static int publish(struct ph_pool *p, const struct ph_header_pm *h, uint64_t header)
{
    struct ph_root_pm old = p->root;
    struct ph_epoch *e;
    int err = ph_pool_grow(&p->epoch, &p->epoch_capacity, p->epochs + 1, sizeof(*p->epoch));

    if (err)
        return err;
    e = &p->epoch[p->epochs++];
    *e = (struct ph_epoch){header,
                           {.number = h->number,
                            .time = h->time,
                            .pages = h->pages,
                            .bytes = h->bytes,
                            .heir_bytes = h->heir_bytes,
                            .record_size = h->record_size}};
    memcpy(e->info.label, h->label, sizeof(e->info.label));
    if (p->root.oldest == 0)
        p->root.oldest = h->number;
    p->root.state = PH_POOL_RUNNING;
    p->root.exit_status = 0;
    ph_root_set_recent(p);
    err = ph_root_write(p);
    if (err) {
        p->epochs--;
        p->root = old;
    }
    return err;
}

/* Everything that the new root record will reach is durable when this returns 0 (P1). */
static int make_durable(struct ph_pool *p)
{
    bool late = ph_tuning.wrong == PH_WRONG_LATE_WRITES;
    int err = late ? 0 : ph_queue_flush(p); /* W4 */

    if (!err && ph_tuning.wrong != PH_WRONG_NO_DATA_BARRIER)
        err = ph_pool_sync(p);
    return err || !late ? err : ph_queue_flush(p);
}

/* Whether the epoch, which has its index, leaves room for the log to go home (S5). */
static int check_room(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;
    uint64_t pages, meta = w->entries * sizeof(*w->entry) + w->record_size + PH_PAGE;
    int err = ph_queue_flush(p); /* what is on its way does not count as free */

    if (err)
        return err;
    pthread_mutex_lock(&p->lock);
    err = ph_view_count_newest(p, w->entry, w->entries, &pages);
    if (!err)
        do
            err = ph_io_space(&p->io, (pages + w->log_pages) * PH_PAGE + meta);
        while (err == PH_EFULL && ph_files_give_up(p) == 0);
    if (err == PH_EFULL) {
        p->disk_full = true;
        ph_pool_fail(p, err, "asking for free space");
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

int ph_pool_commit(struct ph_pool *p, const char *label, uint64_t time)
{
    struct ph_header_pm *h;
    uint64_t header = 0;
    int err = usable(p);

    if (err)
        return err;
    err = complete_index(p);
    if (!err && p->writing.tight)
        err = check_room(p);
    if (!err)
        err = queue_meta(p, label, time, &h, &header);
    if (!err)
        err = make_durable(p);
    if (err)
        return failed(p, err);
    pthread_mutex_lock(&p->lock);
    err = publish(p, h, header);
    if (!err) {
        adopt(p);
        if (!ph_tuning.single_threaded)
            ph_home_wake(p);
    }
    pthread_mutex_unlock(&p->lock);
    if (err)
        return failed(p, err);
    if (ph_tuning.single_threaded && ph_home_due(p))
        ph_home_migrate(p); /* a failure leaves all as it was, and is tried again */
    return 0;
}

void ph_pool_abort(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    if (!w->number)
        return;
    ph_queue_drop(p);
    pthread_mutex_lock(&p->lock);
    ph_room_abort(p);
    ph_heir_abort(p);
    reset(w);
    ph_room_retire(p);
    pthread_mutex_unlock(&p->lock);
    ph_room_give_back(p);
}
