/* SPDX-License-Identifier: MIT */
/*
 * pool_index.c - checksums, epoch headers, indexes, and how they merge
 *
 * An index says which pages an epoch changed: entries strictly ascending by address. The
 * memory as of an epoch is the merge of the log's indexes up to it, where the newest entry of
 * an address wins (P6).
 *
 * Everything here that reads checks what it reads (P8): the checksum first, then each number
 * that is used as an offset or a size, because a checksum says that we wrote it, not that it
 * makes sense.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct ph_sum_pm ph_sum(const void *bytes, size_t size)
{
    XXH128_hash_t h = XXH3_128bits(bytes, size);

    return (struct ph_sum_pm){h.low64, h.high64};
}

struct ph_sum_pm ph_sum_page(const void *page)
{
    struct ph_sum_pm s = ph_sum(page, PH_PAGE);

    s.hi = ph_page_may_own(page) ? s.hi | PH_SUM_MARK : s.hi & ~PH_SUM_MARK;
    if (ph_sum_is_zero(s)) /* zero is taken: it stands for absent */
        s.lo = 1;
    return s;
}

bool ph_sum_is_marked(struct ph_sum_pm s)
{
    return s.hi & PH_SUM_MARK;
}

bool ph_sum_equal(struct ph_sum_pm a, struct ph_sum_pm b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

bool ph_sum_is_zero(struct ph_sum_pm s)
{
    return s.lo == 0 && s.hi == 0;
}

static int by_address(const void *x, const void *y)
{
    const struct ph_entry_pm *a = x, *b = y;

    return a->addr < b->addr ? -1 : a->addr > b->addr;
}

int ph_index_sort(struct ph_entry_pm *entry, size_t n)
{
    size_t i = 1;

    while (i < n && entry[i - 1].addr < entry[i].addr)
        i++;
    if (i >= n) /* callers mostly go through memory upward */
        return 0;
    qsort(entry, n, sizeof(*entry), by_address);
    for (i = 1; i < n; i++)
        if (entry[i - 1].addr == entry[i].addr)
            return PH_EUSAGE;
    return 0;
}

void ph_index_free(struct ph_index *index)
{
    free(index->entry);
    *index = (struct ph_index){0};
}

static int merge_two(struct ph_index *older, struct ph_index *newer)
{
    size_t a = 0, b = 0, n = 0;
    struct ph_entry_pm *out;

    if (newer->n == 0) {
        ph_index_free(newer);
        return 0;
    }
    out = malloc((older->n + newer->n) * sizeof(*out));
    if (!out)
        return PH_ENOMEM;
    while (a < older->n || b < newer->n) {
        if (b == newer->n || (a < older->n && older->entry[a].addr < newer->entry[b].addr)) {
            out[n++] = older->entry[a++];
        } else {
            if (a < older->n && older->entry[a].addr == newer->entry[b].addr)
                a++;
            out[n++] = newer->entry[b++];
        }
    }
    ph_index_free(older);
    ph_index_free(newer);
    *older = (struct ph_index){out, n};
    return 0;
}

int ph_index_merge(struct ph_index *index, size_t n, struct ph_index *out)
{
    int err = 0;

    *out = (struct ph_index){0};
    /* Neighbours pairwise, so that each entry is copied log2(n) times and order is kept. */
    for (size_t step = 1; step < n && !err; step *= 2)
        for (size_t i = 0; i + step < n && !err; i += 2 * step)
            err = merge_two(&index[i], &index[i + step]);
    if (!err && n) {
        *out = index[0];
        index[0] = (struct ph_index){0};
    }
    for (size_t i = 0; i < n; i++)
        ph_index_free(&index[i]);
    return err;
}

bool ph_in_file(const struct ph_pool *p, uint64_t offset, uint64_t size)
{
    return offset % PH_PAGE == 0 && offset >= PH_PAGE && offset < p->super.file_size &&
           size <= p->super.file_size - offset;
}

/* A short or failing read of a place that should exist: damage, unless the disk says more. */
static int read_error(int err)
{
    return err == PH_EIO ? PH_EIO : PH_ECORRUPT;
}

int ph_header_load(struct ph_pool *p, uint64_t offset, uint64_t number,
                   struct ph_header_pm *out)
{
    uint64_t total = 0;
    int err;

    if (!ph_in_file(p, offset, PH_PAGE))
        return PH_ECORRUPT;
    err = ph_io_read(&p->io, out, sizeof(*out), offset);
    if (err)
        return read_error(err);
    if (out->magic != PH_HEADER_MAGIC || out->version != PH_POOL_VERSION ||
        out->number != number || memcmp(out->id, p->super.id, sizeof(out->id)) != 0)
        return PH_ECORRUPT;
    if (!ph_sum_equal(out->sum, ph_sum(out, offsetof(struct ph_header_pm, sum))))
        return PH_ECORRUPT;
    if (out->pieces > PH_PIECES_MAX || out->prev_number >= number ||
        out->label[sizeof(out->label) - 1] != 0 ||
        out->entries > p->super.file_size / sizeof(struct ph_entry_pm) ||
        out->pages > out->entries || out->record_size > p->super.file_size)
        return PH_ECORRUPT;
    for (uint32_t i = 0; i < out->pieces; i++) {
        const struct ph_piece_pm *piece = &out->piece[i];
        if (piece->size == 0 || !ph_in_file(p, piece->offset, piece->size))
            return PH_ECORRUPT;
        total += piece->size; /* at most PH_PIECES_MAX times the file size */
    }
    if (total != out->entries * sizeof(struct ph_entry_pm) + out->record_size)
        return PH_ECORRUPT;
    return 0;
}

/* Read bytes [start, start + size) of the blob that the pieces hold. Through the page cache:
 * opening a pool reads all indexes, and so does the view that follows. */
static int blob_read(struct ph_pool *p, const struct ph_header_pm *h, uint64_t start, char *buf,
                     uint64_t size)
{
    struct ph_io buffered = {.fd = p->io.fd, .direct_fd = -1};

    for (uint32_t i = 0; i < h->pieces && size; i++) {
        const struct ph_piece_pm *piece = &h->piece[i];
        uint64_t part;
        int err;
        if (start >= piece->size) {
            start -= piece->size;
            continue;
        }
        part = piece->size - start < size ? piece->size - start : size;
        err = ph_io_read(&buffered, buf, part, piece->offset + start);
        if (err)
            return read_error(err);
        buf += part;
        size -= part;
        start = 0;
    }
    return size ? PH_ECORRUPT : 0;
}

static bool index_sane(const struct ph_pool *p, const struct ph_header_pm *h,
                       const struct ph_index *index)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < index->n; i++) {
        const struct ph_entry_pm *e = &index->entry[i];
        if (e->addr % PH_PAGE || (i && e[-1].addr >= e->addr))
            return false;
        if (e->offset) {
            if (!ph_in_file(p, e->offset, PH_PAGE))
                return false;
            pages++;
        }
    }
    return pages == h->pages;
}

int ph_index_load(struct ph_pool *p, const struct ph_header_pm *h, struct ph_index *out)
{
    uint64_t size = h->entries * sizeof(struct ph_entry_pm);
    int err = 0;

    *out = (struct ph_index){0};
    if (size) {
        out->entry = malloc(size);
        if (!out->entry)
            return PH_ENOMEM;
        out->n = h->entries;
        err = blob_read(p, h, 0, (char *)out->entry, size);
    }
    if (!err && !ph_sum_equal(h->index_sum, ph_sum(out->entry, size)))
        err = PH_ECORRUPT;
    if (!err && !index_sane(p, h, out))
        err = PH_ECORRUPT;
    if (err)
        ph_index_free(out);
    return err;
}

int ph_index_load_epochs(struct ph_pool *p, const struct ph_epoch *e, size_t n, bool kept,
                         struct ph_header_pm *h, struct ph_index *out)
{
    struct ph_index *index = calloc(n + 1, sizeof(*index));
    int err = index ? 0 : PH_ENOMEM;

    *out = (struct ph_index){0};
    for (size_t i = 0; i < n && !err; i++) {
        err = ph_header_load(p, e[i].header, e[i].info.number, h);
        if (!err && !(kept && ph_root_kept_index(p, h->number, &index[i])))
            err = ph_index_load(p, h, &index[i]);
    }
    if (!err)
        err = ph_index_merge(index, n, out);
    for (size_t i = 0; i < n && index; i++)
        ph_index_free(&index[i]);
    free(index);
    return err;
}

int ph_record_load(struct ph_pool *p, const struct ph_header_pm *h, void **out)
{
    void *record = malloc(h->record_size ? h->record_size : 1);
    int err;

    *out = NULL;
    if (!record)
        return PH_ENOMEM;
    err = blob_read(p, h, h->entries * sizeof(struct ph_entry_pm), record, h->record_size);
    if (!err && !ph_sum_equal(h->record_sum, ph_sum(record, h->record_size)))
        err = PH_ECORRUPT;
    if (err)
        free(record);
    else
        *out = record;
    return err;
}
