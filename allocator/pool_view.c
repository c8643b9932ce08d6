/* SPDX-License-Identifier: MIT */
/*
 * pool_view.c - reading the memory as of an epoch
 *
 * A view is P6 worked out: the log's indexes up to the epoch, merged, over the tables of the
 * stretches at home. It holds runs and checksums, no page data.
 *
 * A view that the writer itself takes is right until it is freed: meanwhile no migration
 * starts, and no extent is reused.
 *
 * A view that another process takes is right as long as the root's H does not move: before
 * that, nothing the view refers to is reused (P5), and home changes only at pages that the view
 * has from the log (P3). While it is built this is checked, and it is built again if need be;
 * verifying it does the same.
 */
#include "allocator/pool_internal.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define RETRIES 100

struct ph_view {
    struct ph_pool *pool;
    uint64_t number;
    uint64_t home_epoch; /* H when it was built */
    struct ph_run *run;
    size_t runs, run_capacity;
    struct ph_sum_pm *sum; /* of each page, in order */
    size_t pages, page_capacity;
    struct ph_page_span *marked;
    size_t marks, mark_capacity;
    void *record;
    size_t record_size;
};

static int add_mark(struct ph_view *v, uint64_t addr)
{
    if (v->marks && v->marked[v->marks - 1].end == addr) {
        v->marked[v->marks - 1].end += PH_PAGE;
        return 0;
    }
    if (ph_pool_grow(&v->marked, &v->mark_capacity, v->marks + 1, sizeof(*v->marked)))
        return PH_ENOMEM;
    v->marked[v->marks++] = (struct ph_page_span){addr, addr + PH_PAGE};
    return 0;
}

static int add_page(struct ph_view *v, uint64_t addr, uint64_t offset, struct ph_sum_pm sum)
{
    struct ph_run *last = v->runs ? &v->run[v->runs - 1] : NULL;

    if (ph_pool_grow(&v->sum, &v->page_capacity, v->pages + 1, sizeof(*v->sum)))
        return PH_ENOMEM;
    v->sum[v->pages++] = sum;
    if (ph_sum_is_marked(sum) && add_mark(v, addr))
        return PH_ENOMEM;
    if (last && last->addr + last->npages * PH_PAGE == addr &&
        last->offset + last->npages * PH_PAGE == offset) {
        last->npages++;
        return 0;
    }
    if (ph_pool_grow(&v->run, &v->run_capacity, v->runs + 1, sizeof(*v->run)))
        return PH_ENOMEM;
    v->run[v->runs++] = (struct ph_run){addr, 1, offset};
    return 0;
}

static int add_entry(struct ph_view *v, const struct ph_entry_pm *e)
{
    return e->offset ? add_page(v, e->addr, e->offset, e->sum) : 0;
}

/* Merge one stretch at home with the log's entries from @p i on. */
static int add_stretch(struct ph_view *v, const struct ph_index *log, size_t *i, uint32_t slot,
                       struct ph_sum_pm *table)
{
    struct ph_pool *p = v->pool;
    const struct ph_extent *e = &p->extent[slot];
    uint64_t data = e->offset + ph_table_pages(&p->super) * PH_PAGE;
    int err = ph_home_table(p, slot, table);

    for (uint32_t k = 0; k < p->super.stretch_pages && !err; k++) {
        uint64_t addr = e->stretch + k * PH_PAGE;
        while (*i < log->n && log->entry[*i].addr < addr && !err)
            err = add_entry(v, &log->entry[(*i)++]);
        if (err)
            break;
        if (*i < log->n && log->entry[*i].addr == addr)
            err = add_entry(v, &log->entry[(*i)++]);
        else if (!ph_sum_is_zero(table[k]))
            err = add_page(v, addr, data + k * PH_PAGE, table[k]);
    }
    return err;
}

struct home {
    uint64_t stretch;
    uint32_t slot;
};

static int by_stretch(const void *x, const void *y)
{
    const struct home *a = x, *b = y;

    return a->stretch < b->stretch ? -1 : a->stretch > b->stretch;
}

static int add_pages(struct ph_view *v, const struct ph_index *log)
{
    struct ph_pool *p = v->pool;
    struct ph_sum_pm *table = aligned_alloc(PH_PAGE, ph_table_pages(&p->super) * PH_PAGE);
    struct home *home = malloc((p->extents + 1) * sizeof(*home));
    size_t n = 0, i = 0;
    int err = table && home ? 0 : PH_ENOMEM;

    for (uint32_t k = 0; k < p->extents && !err; k++) {
        uint32_t slot = p->by_offset[k];
        if (p->extent[slot].role == PH_EXTENT_HOME)
            home[n++] = (struct home){p->extent[slot].stretch, slot};
    }
    if (!err)
        qsort(home, n, sizeof(*home), by_stretch);
    for (size_t k = 0; k < n && !err; k++)
        err = add_stretch(v, log, &i, home[k].slot, table);
    while (i < log->n && !err)
        err = add_entry(v, &log->entry[i++]);
    free(table);
    free(home);
    return err;
}

/* The indexes of the log's first @p n epochs, merged; @p h: the header of the last. @pre lock
 * held */
static int merge_log(struct ph_pool *p, size_t n, struct ph_header_pm *h,
                     struct ph_index *merged)
{
    int err = ph_index_load_epochs(p, p->epoch, n, true, h, merged);

    ph_root_forget_indexes(p);
    return err;
}

/* @pre lock held */
static int build(struct ph_view *v)
{
    struct ph_pool *p = v->pool;
    struct ph_index merged = {0};
    struct ph_header_pm h = {0};
    size_t at = 0;
    int err;

    while (at < p->epochs && p->epoch[at].info.number != v->number)
        at++;
    if (at == p->epochs || v->number < p->root.oldest)
        return PH_ENOEPOCH;
    v->home_epoch = p->root.home_epoch;
    err = merge_log(p, at + 1, &h, &merged);
    if (!err)
        err = ph_record_load(p, &h, &v->record);
    if (!err) {
        v->record_size = h.record_size;
        err = add_pages(v, &merged);
    }
    ph_index_free(&merged);
    return err;
}

int ph_view_count_newest(struct ph_pool *p, const struct ph_entry_pm *e, size_t n,
                         uint64_t *pages)
{
    struct ph_index log = {0};
    struct ph_header_pm h;
    size_t k = 0;
    int err = merge_log(p, p->epochs, &h, &log);

    *pages = 0;
    for (size_t i = 0; i < log.n; i++) {
        while (k < n && e[k].addr < log.entry[i].addr)
            k++;
        *pages += log.entry[i].offset && !(k < n && e[k].addr == log.entry[i].addr);
    }
    ph_index_free(&log);
    return err;
}

static void clear(struct ph_view *v)
{
    free(v->run);
    free(v->sum);
    free(v->marked);
    free(v->record);
    *v = (struct ph_view){.pool = v->pool, .number = v->number};
}

int ph_pool_view(struct ph_pool *p, uint64_t number, struct ph_view **out)
{
    struct ph_view *v = malloc(sizeof(*v));
    int err = PH_ENOMEM;

    *out = NULL;
    if (!v)
        return PH_ENOMEM;
    *v = (struct ph_view){.pool = p, .number = number};
    for (int i = 0; i < RETRIES; i++) {
        pthread_mutex_lock(&p->lock);
        err = ph_pool_refresh(p);
        if (!err)
            err = build(v);
        bool stale = ph_pool_is_stale(p);
        if (!err && p->writable)
            p->views++;
        pthread_mutex_unlock(&p->lock);
        if (!stale)
            break;
        clear(v);
        err = PH_EBUSY; /* cannot happen but to a writer that does nothing but migrate */
    }
    if (err) {
        clear(v);
        free(v);
        return err;
    }
    *out = v;
    return 0;
}

const struct ph_run *ph_view_runs(const struct ph_view *view, size_t *n)
{
    *n = view->runs;
    return view->run;
}

const struct ph_sum_pm *ph_view_sums(const struct ph_view *view)
{
    return view->sum;
}

const struct ph_page_span *ph_view_marked(const struct ph_view *view, size_t *n)
{
    *n = view->marks;
    return view->marked;
}

const void *ph_view_record(const struct ph_view *view, size_t *size)
{
    *size = view->record_size;
    return view->record;
}

void ph_view_free(struct ph_view *view)
{
    struct ph_pool *p;

    if (!view)
        return;
    p = view->pool;
    pthread_mutex_lock(&p->lock);
    if (p->writable && --p->views == 0) {
        ph_room_retire(p);
        if (p->awake)
            ph_home_wake(p);
    }
    pthread_mutex_unlock(&p->lock);
    clear(view);
    free(view);
}

#define STALE 1

/* A page does not match: has the writer gone on, or is it damage? */
static int mismatch(const struct ph_view *v, uint64_t addr, uint64_t *bad_addr)
{
    struct ph_pool *p = v->pool;
    struct ph_root_pm now;
    bool settled;

    if (!p->writable && (ph_root_read(p, &now, &settled) || now.home_epoch != v->home_epoch ||
                         now.oldest > v->number)) /* P3: home may change for v already */
        return STALE;
    if (bad_addr)
        *bad_addr = addr;
    return PH_ECORRUPT;
}

static void will_need(int fd, const struct ph_run *r, uint64_t page, uint64_t pages)
{
    if (pages > r->npages - page)
        pages = r->npages - page;
    posix_fadvise(fd, (off_t)(r->offset + page * PH_PAGE), (off_t)(pages * PH_PAGE),
                  POSIX_FADV_WILLNEED);
}

/* Have the kernel read on while what it has read is hashed, into the next run as well: the disk
 * is not to wait where one stretch ends. */
static void read_ahead(int fd, const struct ph_run *r, uint64_t page, const struct ph_run *next)
{
    const uint64_t step = (UINT64_C(8) << 20) / PH_PAGE;
    uint64_t left = r->npages - page;

    if (page % step || left <= PH_IO_CHUNK / PH_PAGE)
        return;
    will_need(fd, r, page, 2 * step);
    if (next && left < 2 * step)
        will_need(fd, next, 0, 2 * step - left);
}

struct verifying {
    char *buffer; /* PH_IO_CHUNK bytes */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t done, total; /* bytes */
    const _Atomic bool *stop;
};

static int verify_run(const struct ph_view *v, struct verifying *w, const struct ph_run *r,
                      const struct ph_run *next, const struct ph_sum_pm *sum,
                      uint64_t *bad_addr)
{
    /* Through the page cache: who verifies an epoch is about to use it. */
    struct ph_io buffered = {.fd = v->pool->io.fd, .direct_fd = -1};
    int err = 0;

    for (uint64_t at = 0, n; at < r->npages && !err; at += n) {
        if (w->stop && atomic_load(w->stop))
            return PH_EINTR;
        n = r->npages - at < PH_IO_CHUNK / PH_PAGE ? r->npages - at : PH_IO_CHUNK / PH_PAGE;
        read_ahead(buffered.fd, r, at, next);
        err = ph_io_read(&buffered, w->buffer, n * PH_PAGE, r->offset + at * PH_PAGE);
        if (err == PH_ETRUNC)
            err = mismatch(v, r->addr + at * PH_PAGE, bad_addr);
        for (uint64_t k = 0; k < n && !err; k++)
            if (!ph_sum_equal(*sum++, ph_sum_page(w->buffer + k * PH_PAGE)))
                err = mismatch(v, r->addr + (at + k) * PH_PAGE, bad_addr);
        w->done += n * PH_PAGE;
        if (w->progress && !err)
            w->progress(w->arg, w->done, w->total);
    }
    return err;
}

static int verify(const struct ph_view *v,
                  void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                  uint64_t *bad_addr)
{
    struct verifying w = {.buffer = aligned_alloc(PH_PAGE, PH_IO_CHUNK),
                          .progress = progress,
                          .arg = arg,
                          .total = v->pages * PH_PAGE};
    const struct ph_sum_pm *sum = v->sum;
    int err = w.buffer ? 0 : PH_ENOMEM;

    for (size_t i = 0; i < v->runs && !err; i++) {
        const struct ph_run *next = i + 1 < v->runs ? &v->run[i + 1] : NULL;
        err = verify_run(v, &w, &v->run[i], next, sum, bad_addr);
        sum += v->run[i].npages;
    }
    free(w.buffer);
    return err;
}

int ph_view_verify_run(const struct ph_view *v, const struct ph_run *run,
                       const struct ph_run *next, uint64_t first, const _Atomic bool *stop,
                       uint64_t *bad_addr)
{
    struct verifying w = {.buffer = aligned_alloc(PH_PAGE, PH_IO_CHUNK), .stop = stop};
    int err = PH_ENOMEM;

    if (w.buffer)
        err = verify_run(v, &w, run, next, v->sum + first, bad_addr);
    free(w.buffer);
    return err;
}

int ph_view_verify(const struct ph_view *v,
                   void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                   uint64_t *bad_addr)
{
    int err = verify(v, progress, arg, bad_addr);

    for (int i = 0; i < RETRIES && err == STALE; i++) {
        struct ph_view *fresh;
        int view_err = ph_pool_view(v->pool, v->number, &fresh);
        if (view_err)
            return view_err;
        err = verify(fresh, progress, arg, bad_addr);
        ph_view_free(fresh);
    }
    return err == STALE ? PH_EBUSY : err;
}
