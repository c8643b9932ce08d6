/* SPDX-License-Identifier: MIT */
/*
 * pool_pack.c - a copy of a pool without what nothing needs
 *
 * Extents are never given back, so a pool's file keeps the size of its busiest time, and most
 * of what a sparse copy would carry is of epochs long gone. Packing copies, page by page at its
 * place, libpmemobj's own metadata, what the root record reaches, and what is at home; the rest
 * of the copy is holes. The copy is a pool like any other: same epochs, same id, same logical
 * size.
 *
 * It is written beside its name and gets the name when it is durable, so a crash leaves no copy
 * that looks whole.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct packing {
    struct ph_pool *pool;
    struct ph_io out;
    unsigned char *needed; /* a bit for each page of each slot's extent */
    char *buffer;          /* PH_IO_CHUNK, page-aligned */
};

static uint64_t bit_of(const struct ph_pool *p, uint32_t slot, uint64_t offset)
{
    return (uint64_t)slot * p->super.extent_pages + (offset - p->extent[slot].offset) / PH_PAGE;
}

static void need(struct packing *k, uint64_t offset, uint64_t size)
{
    uint32_t slot = ph_extent_find(k->pool, offset);

    for (uint64_t at = 0; slot != PH_NO_SLOT && at < size; at += PH_PAGE) {
        uint64_t bit = bit_of(k->pool, slot, offset + at);
        k->needed[bit / 8] |= (unsigned char)(1u << bit % 8);
    }
}

static bool is_needed(const struct packing *k, uint64_t offset)
{
    uint32_t slot = ph_extent_find(k->pool, offset);

    if (slot == PH_NO_SLOT) /* libpmemobj's, or the root object */
        return true;
    uint64_t bit = bit_of(k->pool, slot, offset);
    return k->needed[bit / 8] >> bit % 8 & 1;
}

static int need_log(struct packing *k)
{
    struct ph_pool *p = k->pool;
    struct ph_header_pm h;
    int err = 0;

    for (size_t i = 0; i < p->epochs && !err; i++) {
        struct ph_index index = {0};
        err = ph_header_load(p, p->epoch[i].header, p->epoch[i].info.number, &h);
        if (!err)
            err = ph_index_load(p, &h, &index);
        if (err)
            break;
        need(k, p->epoch[i].header, PH_PAGE);
        for (uint32_t j = 0; j < h.pieces; j++)
            need(k, h.piece[j].offset, h.piece[j].size);
        for (size_t j = 0; j < index.n; j++)
            if (index.entry[j].offset)
                need(k, index.entry[j].offset, PH_PAGE);
        ph_index_free(&index);
    }
    return err;
}

static int need_home(struct packing *k)
{
    struct ph_pool *p = k->pool;
    uint64_t table_size = ph_table_pages(&p->super) * PH_PAGE;
    struct ph_sum_pm *table = aligned_alloc(PH_PAGE, table_size);
    int err = table ? 0 : PH_ENOMEM;

    for (uint32_t i = 0; i < p->extents && !err; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role != PH_EXTENT_HOME)
            continue;
        err = ph_home_table(p, p->by_offset[i], table);
        need(k, e->offset, table_size);
        for (uint32_t j = 0; j < p->super.stretch_pages && !err; j++)
            if (!ph_sum_is_zero(table[j]))
                need(k, e->offset + table_size + j * PH_PAGE, PH_PAGE);
    }
    free(table);
    return err;
}

static void need_files(struct packing *k)
{
    const struct ph_files *f = &k->pool->files;

    for (size_t i = 0; i < f->n; i++) {
        need(k, f->file[i].header, PH_PAGE);
        for (uint32_t j = 0; j < f->file[i].pm.pieces; j++)
            need(k, f->file[i].pm.piece[j].offset, f->file[i].pm.piece[j].size);
    }
}

/* Copy what is needed of [at, at + size); a page of zeros is left a hole. */
static int copy_piece(struct packing *k, uint64_t at, uint64_t size)
{
    static const char zero[PH_PAGE];
    uint64_t from = 0, n;
    int err = ph_io_read(&k->pool->io, k->buffer, size, at);

    while (from < size && !err) {
        for (n = 0; from + n < size && is_needed(k, at + from + n) &&
                    memcmp(k->buffer + from + n, zero, PH_PAGE) != 0;)
            n += PH_PAGE;
        if (n)
            err = ph_io_write(&k->out, k->buffer + from, n, at + from);
        from += n ? n : PH_PAGE;
    }
    return err;
}

static int copy_data(struct packing *k)
{
    struct ph_pool *p = k->pool;
    uint64_t at = 0, end = p->super.file_size;
    int err = 0;

    while (at < end && !err) {
        off_t data = lseek(p->io.fd, (off_t)at, SEEK_DATA), hole;
        if (data < 0)
            return errno == ENXIO ? 0 : PH_EIO;
        hole = lseek(p->io.fd, data, SEEK_HOLE);
        if (hole < 0)
            return PH_EIO;
        at = (uint64_t)data / PH_PAGE * PH_PAGE;
        uint64_t stop = ((uint64_t)hole + PH_PAGE - 1) / PH_PAGE * PH_PAGE;
        for (stop = stop < end ? stop : end; at < stop && !err;) {
            uint64_t n = stop - at < PH_IO_CHUNK ? stop - at : PH_IO_CHUNK;
            err = copy_piece(k, at, n);
            at += n;
        }
    }
    return err;
}

/* Both records the same: the older one may reach what was not copied. */
static int write_roots(struct packing *k)
{
    struct ph_root_pm root = k->pool->root;
    int err = 0;

    for (int i = 0; i < 2 && !err; i++) {
        root.seq++;
        root.sum = ph_sum(&root, offsetof(struct ph_root_pm, sum));
        err = ph_io_write(&k->out, &root, sizeof(root),
                          k->pool->super.self + PH_PAGE * (1 + (root.seq & 1)));
    }
    return err;
}

static int fill(struct packing *k)
{
    struct ph_pool *p = k->pool;
    int err = ph_io_truncate(&k->out, p->super.file_size);

    if (!err)
        err = ph_pmem_reserve(&k->out, p->super.file_size);
    if (!err)
        err = need_log(k);
    if (!err)
        err = need_home(k);
    if (!err)
        need_files(k);
    if (!err)
        err = copy_data(k);
    return err ? err : write_roots(k);
}

static int give_name(struct ph_pool *p, int fd, const char *temporary, const char *path)
{
    if (fsync(fd))
        return ph_pool_fail(p, PH_EIO, temporary);
    if (ph_name_move(temporary, path) != 0)
        return ph_pool_fail(p, errno == EEXIST ? PH_EUSAGE : ph_pool_open_error(errno), path);
    return ph_name_sync(path);
}

/* @pre nothing else changes the pool */
static int pack(struct ph_pool *p, const char *path)
{
    struct packing k = {.pool = p, .out = {-1, -1}};
    uint64_t bits = (uint64_t)p->super.slot_count * p->super.extent_pages;
    char *temporary = NULL;
    int err = asprintf(&temporary, "%s.XXXXXX", path) < 0 ? PH_ENOMEM : 0;

    k.needed = calloc(bits / 8 + 1, 1);
    k.buffer = aligned_alloc(PH_PAGE, PH_IO_CHUNK);
    if (!k.needed || !k.buffer)
        err = PH_ENOMEM;
    if (!err && (k.out.fd = mkostemp(temporary, O_CLOEXEC)) < 0) { /* mode 0600 */
        err = ph_pool_open_error(errno);
        ph_pool_fail(p, err, path);
    }
    if (!err)
        err = fill(&k);
    if (!err)
        err = give_name(p, k.out.fd, temporary, path);
    if (err && k.out.fd >= 0)
        unlink(temporary);
    ph_io_close(&k.out);
    free(temporary);
    free(k.needed);
    free(k.buffer);
    return err;
}

int ph_pool_pack(struct ph_pool *p, const char *path)
{
    int err, start_err;

    if (!p->writable || p->writing.number || p->files.active)
        return PH_EUSAGE;
    if (p->epochs == 0)
        return PH_ENOEPOCH; /* nothing to go on from, a claim or not */
    errno = EEXIST;
    if (access(path, F_OK) == 0)
        return ph_pool_fail(p, PH_EUSAGE, path);
    ph_home_stop(p);
    p->stop = false;
    pthread_mutex_lock(&p->lock);
    err = ph_root_settle(p);
    if (!err)
        err = pack(p, path);
    pthread_mutex_unlock(&p->lock);
    start_err = ph_home_start(p);
    return err ? err : start_err;
}
