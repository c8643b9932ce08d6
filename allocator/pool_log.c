/* SPDX-License-Identifier: MIT */
/*
 * pool_log.c - the epoch in progress: append and commit
 *
 * Pages go to the end of the log as they come. What the epoch changes in memory (entries,
 * record, which extents it touched) is kept aside until the root record is durable, and only
 * then becomes the pool's state: so aborting is forgetting, and the filter always speaks of
 * the committed epoch.
 *
 *   idle --begin--> open --append, set_present, append_record--> open --commit--> idle
 *                    |  a failure                                  |
 *                    v                                             v
 *                  failed ------------------abort---------------> idle
 *
 * Invariant: an extent that the epoch in progress writes to has last_epoch == PH_EPOCH_OPEN,
 * so that migration does not free it.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define IOV_PAGES (PH_IO_CHUNK / PH_PAGE)

/* Make *array of *capacity elements hold @p need. */
static int grow(void *array, size_t *capacity, size_t need, size_t element)
{
    size_t n = *capacity;
    void *bigger;

    if (need <= n)
        return 0;
    while (n < need)
        n += n / 2 + 64;
    bigger = realloc(*(void **)array, n * element);
    if (!bigger)
        return PH_ENOMEM;
    *(void **)array = bigger;
    *capacity = n;
    return 0;
}

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
    free(w->record);
    free(w->span);
    free(w->touched);
    *w = (struct ph_writing){0};
}

int ph_pool_begin(struct ph_pool *p, uint64_t number)
{
    struct ph_writing *w = &p->writing;
    int err = 0;

    if (!p->writable || w->number || number == 0 || number == PH_EPOCH_OPEN)
        return PH_EUSAGE;
    pthread_mutex_lock(&p->lock);
    if (p->broken)
        err = p->broken;
    else if (p->epochs && number <= p->epoch[p->epochs - 1].info.number)
        err = PH_EUSAGE;
    if (!err)
        err = ph_root_settle(p);
    if (!err) {
        /* The log is bounded: when migration falls behind, wait for it. If it fails, go on
         * while there is room; then append says what is wrong. */
        while (ph_home_behind(p) && ph_home_force(p) == 0)
            ;
        *w = (struct ph_writing){
            .number = number, .start_slot = p->log_slot, .start_page = p->log_page};
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

/* Note that the epoch in progress writes to @p slot, whose role was @p old_role. */
static int touch(struct ph_pool *p, uint32_t slot, enum ph_extent_role old_role)
{
    struct ph_writing *w = &p->writing;
    struct ph_extent *e = &p->extent[slot];

    if (w->ntouched && w->touched[w->ntouched - 1].slot == slot)
        return 0;
    if (grow(&w->touched, &w->touched_capacity, w->ntouched + 1, sizeof(*w->touched)))
        return PH_ENOMEM;
    w->touched[w->ntouched++] = (struct ph_touched){slot, old_role, e->last_epoch};
    e->last_epoch = PH_EPOCH_OPEN;
    return 0;
}

/* Go on in a new extent. When there is none, migration may give some back. */
static int next_extent(struct ph_pool *p)
{
    uint32_t slot;
    int err = ph_extent_take(p, PH_EXTENT_LOG, &slot);

    while (err == PH_EPOOLSIZE || err == PH_EFULL) {
        if (ph_home_force(p) && ph_files_give_up(p)) /* P10 */
            break;
        err = ph_extent_take(p, PH_EXTENT_LOG, &slot);
    }
    if (err)
        return err;
    err = touch(p, slot, PH_EXTENT_FREE);
    if (err) {
        p->extent[slot].role = PH_EXTENT_FREE;
        return err;
    }
    p->log_slot = slot;
    p->log_page = 0;
    return 0;
}

/* Take up to @p want pages at the end of the log. */
static int take_pages(struct ph_pool *p, uint64_t want, uint64_t *offset, uint64_t *got)
{
    int err = 0;

    pthread_mutex_lock(&p->lock);
    if (p->log_slot == PH_NO_SLOT || p->log_page == p->super.extent_pages)
        err = next_extent(p);
    else
        err = touch(p, p->log_slot, PH_EXTENT_LOG);
    if (!err) {
        uint64_t left = p->super.extent_pages - p->log_page;
        *got = want < left ? want : left;
        *offset = p->extent[p->log_slot].offset + p->log_page * PH_PAGE;
        p->log_page += (uint32_t)*got;
        p->writing.log_pages += *got;
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

/* Write @p n pages to consecutive places. Direct I/O wants page-aligned memory; callers' pages
 * are, in practice, else they are copied. */
static int write_pages(struct ph_pool *p, const void *const *page, size_t n, uint64_t offset)
{
    struct iovec iov[IOV_PAGES];
    bool aligned = true;
    int count = 0;

    for (size_t i = 0; i < n; i++)
        aligned = aligned && (uintptr_t)page[i] % PH_PAGE == 0;
    for (size_t i = 0; i < n; i++) {
        const char *from = page[i];
        if (!aligned) {
            memcpy((char *)p->bounce + i * PH_PAGE, from, PH_PAGE);
            from = (char *)p->bounce + i * PH_PAGE;
        }
        if (count && (char *)iov[count - 1].iov_base + iov[count - 1].iov_len == from)
            iov[count - 1].iov_len += PH_PAGE;
        else
            iov[count++] = (struct iovec){(void *)(uintptr_t)from, PH_PAGE};
    }
    int err = ph_io_writev(&p->io, iov, count, offset);
    return err ? ph_pool_fail(p, err, "writing pages") : 0;
}

/* Place and write the pages of the last @p n entries, whose offsets are not known yet. */
static int place_pages(struct ph_pool *p, const void *const *page, size_t n)
{
    struct ph_entry_pm *e = p->writing.entry + p->writing.entries - n;

    while (n) {
        uint64_t offset, got;
        int err = take_pages(p, n, &offset, &got);
        if (err)
            return err;
        for (uint64_t i = 0; i < got; i++)
            e[i].offset = offset + i * PH_PAGE;
        err = write_pages(p, page, got, offset);
        if (err == PH_EFULL) { /* P10: files may have what the epoch needs */
            pthread_mutex_lock(&p->lock);
            bool room = ph_files_give_up(p) == 0;
            pthread_mutex_unlock(&p->lock);
            if (room)
                err = write_pages(p, page, got, offset);
        }
        if (err)
            return err;
        e += got;
        page += got;
        n -= got;
    }
    return 0;
}

int ph_pool_append(struct ph_pool *p, const uint64_t *addr, const void *const *page, size_t n,
                   size_t *written)
{
    struct ph_writing *w = &p->writing;
    const void *batch[IOV_PAGES];
    size_t k = 0, before = w->entries;
    int err = usable(p);

    if (!err)
        err = failed(p, grow(&w->entry, &w->entry_capacity, w->entries + n, sizeof(*w->entry)));
    for (size_t i = 0; i < n && !err; i++) {
        struct ph_sum_pm sum = ph_sum_page(page[i]);
        if (addr[i] % PH_PAGE) {
            err = failed(p, PH_EUSAGE);
            break;
        }
        if (ph_sum_equal(sum, ph_filter_get(&p->filter, addr[i]))) {
            p->pages_filtered++;
            continue;
        }
        w->entry[w->entries++] = (struct ph_entry_pm){addr[i], 0, sum};
        batch[k++] = page[i];
        if (k == IOV_PAGES) {
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
    err = grow(&w->record, &w->record_capacity, w->record_size + size, 1);
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
    if (grow(&w->entry, &w->entry_capacity, w->entries + 1, sizeof(*w->entry)))
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

/* Complete the index: sorted, with the pages that are forgotten; and make sure that the filter
 * can take it, since nothing may fail once the root record is written. */
static int complete_index(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;
    int err = ph_index_sort(w->entry, w->entries);

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

/* Write the blob of @p size bytes that lies at @p blob, in pieces. @p blob has room up to a
 * whole page. */
static int write_blob(struct ph_pool *p, struct ph_header_pm *h, const char *blob,
                      uint64_t size)
{
    while (size) {
        uint64_t want = (size + PH_PAGE - 1) / PH_PAGE, offset, got, part;
        int err = take_pages(p, want, &offset, &got);
        if (err)
            return err;
        if (h->pieces == PH_PIECES_MAX)
            return PH_EPOOLSIZE;
        part = got * PH_PAGE < size ? got * PH_PAGE : size;
        h->piece[h->pieces++] = (struct ph_piece_pm){offset, part};
        for (uint64_t at = 0; at < got * PH_PAGE; at += PH_IO_CHUNK) {
            uint64_t n = got * PH_PAGE - at;
            err =
                ph_io_write(&p->io, blob + at, n < PH_IO_CHUNK ? n : PH_IO_CHUNK, offset + at);
            if (err)
                return ph_pool_fail(p, err, "writing the index");
        }
        blob += part;
        size -= part;
    }
    return 0;
}

static int write_meta(struct ph_pool *p, struct ph_header_pm *h)
{
    struct ph_writing *w = &p->writing;
    uint64_t index_size = w->entries * sizeof(*w->entry), size = index_size + w->record_size;
    uint64_t room = (size + PH_PAGE - 1) / PH_PAGE * PH_PAGE;
    char *blob = NULL;
    int err = 0;

    h->index_sum = ph_sum(w->entry, index_size);
    h->record_sum = ph_sum(w->record, w->record_size);
    if (size) {
        blob = aligned_alloc(PH_PAGE, room);
        if (!blob)
            return PH_ENOMEM;
        if (index_size)
            memcpy(blob, w->entry, index_size);
        if (w->record_size)
            memcpy(blob + index_size, w->record, w->record_size);
        memset(blob + size, 0, room - size);
        err = write_blob(p, h, blob, size);
    }
    free(blob);
    return err;
}

static int write_header(struct ph_pool *p, struct ph_header_pm *h, uint64_t *offset)
{
    uint64_t got;
    int err = take_pages(p, 1, offset, &got);

    if (err)
        return err;
    h->bytes = p->writing.log_pages * PH_PAGE;
    h->sum = ph_sum(h, offsetof(struct ph_header_pm, sum));
    err = ph_io_write(&p->io, h, sizeof(*h), *offset);
    return err ? ph_pool_fail(p, err, "writing the epoch's header") : 0;
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

/* The epoch is durable: make it the pool's state. Cannot fail. */
static void adopt(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    for (size_t i = 0; i < w->ntouched; i++)
        p->extent[w->touched[i].slot].last_epoch = w->number;
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
    int err = grow(&p->epoch, &p->epoch_capacity, p->epochs + 1, sizeof(*p->epoch));

    if (err)
        return err;
    e = &p->epoch[p->epochs++];
    *e = (struct ph_epoch){header,
                           {.number = h->number,
                            .time = h->time,
                            .pages = h->pages,
                            .bytes = h->bytes,
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

int ph_pool_commit(struct ph_pool *p, const char *label, uint64_t time)
{
    struct ph_header_pm *h = p->bounce; /* idle by now, and aligned */
    uint64_t header = 0;
    int err = usable(p);

    if (err)
        return err;
    err = complete_index(p);
    if (!err) {
        pthread_mutex_lock(&p->lock);
        fill_header(p, h, label, time);
        pthread_mutex_unlock(&p->lock);
        err = write_meta(p, h);
    }
    if (!err)
        err = write_header(p, h, &header);
    if (!err && ph_tuning.wrong != PH_WRONG_NO_DATA_BARRIER) {
        err = ph_io_sync(&p->io);
        if (err) { /* what the kernel holds and what the disk holds may differ from now on */
            p->broken = err;
            ph_pool_fail(p, err, "fdatasync");
        }
    }
    if (err)
        return failed(p, err);
    pthread_mutex_lock(&p->lock);
    err = publish(p, h, header);
    if (!err) {
        adopt(p);
        if (!ph_tuning.inline_migration)
            ph_home_wake(p);
    }
    pthread_mutex_unlock(&p->lock);
    if (err)
        return failed(p, err);
    if (ph_tuning.inline_migration && ph_home_due(p))
        ph_home_migrate(p); /* a failure leaves all as it was, and is tried again */
    return 0;
}

void ph_pool_abort(struct ph_pool *p)
{
    struct ph_writing *w = &p->writing;

    if (!w->number)
        return;
    pthread_mutex_lock(&p->lock);
    p->log_slot = w->start_slot;
    p->log_page = w->start_page;
    while (w->ntouched--) {
        const struct ph_touched *t = &w->touched[w->ntouched];
        p->extent[t->slot].role = t->old_role;
        p->extent[t->slot].last_epoch = t->old_last;
    }
    reset(w);
    ph_extent_retire(p);
    pthread_mutex_unlock(&p->lock);
}
