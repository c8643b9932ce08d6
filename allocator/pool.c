/* SPDX-License-Identifier: MIT */
/*
 * pool.c - the pool as a whole: open, close, finish, rewind
 *
 * Opening looks at the file with read() alone before libpmemobj may see it: owner and mode,
 * what kind of file it is, the superblock, whether it is whole. libpmemobj is then used by a
 * writer only, for its lock and for allocating extents; a reader does without, because
 * libpmemobj locks the file exclusively and writes to it even when it is only opened. So the
 * reader needs the superblock's place: the superblock lies in libpmemobj's root object, which
 * is the first thing allocated, hence near the start; it is looked for page by page among the
 * file's data there, and holds its own offset, so a copy of one inside a page is not taken for
 * it.
 * A claim (pool_claim.c) is opened as a pool without epochs.
 */
#include "allocator/pool_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of libpmemobj's own on-media layout, as of every 1.x. */
#define PMEM_SIGNATURE "PMEMOBJ"
#define PMEM_LAYOUT_AT 4096u

#define SUPER_SEARCH   (UINT64_C(64) << 20) /* bytes from the start of the file */

int ph_pool_grow(void *array, size_t *capacity, size_t need, size_t element)
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

int ph_pool_fail(struct ph_pool *p, int err, const char *what)
{
    if (errno)
        snprintf(p->detail, sizeof(p->detail), "%s: %s", what, strerror(errno));
    else
        snprintf(p->detail, sizeof(p->detail), "%s", what);
    return err;
}

static int note_sync(struct ph_pool *p, int err)
{
    if (err) {
        p->broken = err;
        ph_pool_fail(p, err, "fdatasync");
    }
    return err;
}

int ph_pool_sync(struct ph_pool *p)
{
    int err = ph_io_sync(&p->io);

    if (err) {
        pthread_mutex_lock(&p->lock);
        note_sync(p, err);
        pthread_mutex_unlock(&p->lock);
    }
    return err;
}

int ph_pool_sync_locked(struct ph_pool *p)
{
    return note_sync(p, ph_io_sync(&p->io));
}

const char *ph_pool_error_detail(const struct ph_pool *p)
{
    return p ? p->detail : "";
}

int ph_pool_fd(const struct ph_pool *p)
{
    return p->io.fd;
}

struct ph_pool *ph_pool_new(const char *path)
{
    struct ph_pool *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->io = (struct ph_io){-1, -1};
    p->end.slot = p->files.slot = PH_NO_SLOT;
    p->path = strdup(path);
    p->bounce = aligned_alloc(PH_PAGE, PH_IO_CHUNK);
    if (!p->bounce || !p->path) {
        free(p->bounce);
        free(p->path);
        free(p);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    ph_queue_init(&p->queue);
    return p;
}

void ph_pool_close(struct ph_pool *p)
{
    if (!p)
        return;
    ph_home_stop(p);
    ph_pool_abort(p);
    ph_queue_free(p);
    if (p->pop && !p->pop_lost)
        pmemobj_close(p->pop);
    ph_io_close(&p->io);
    ph_filter_free(&p->filter);
    ph_home_shrink_free(p);
    ph_root_forget_indexes(p);
    free(p->present);
    free(p->dense);
    free(p->epoch);
    free(p->extent);
    free(p->by_offset);
    ph_files_free(p);
    free(p->bounce);
    free(p->path);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- open ------------------------------------------------------------------------- */

int ph_pool_open_error(int err)
{
    switch (err) {
    case EEXIST:
        return PH_EUNFINISHED;
    case ELOOP: /* O_NOFOLLOW: a symbolic link */
    case ENXIO:
    case ENODEV:
    case EISDIR:
        return PH_ENOTPOOL;
    default:
        return ph_error_of(err);
    }
}

/* Owner, mode, kind. */
static int check_file(struct ph_pool *p, uint64_t *size)
{
    struct stat st;

    if (fstat(p->io.fd, &st))
        return PH_EIO;
    if (!S_ISREG(st.st_mode))
        return PH_ENOTPOOL;
    if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
        return PH_EOWNER;
    *size = (uint64_t)st.st_size;
    return 0;
}

/* A pool, or a claim to be loaded. */
static int check_kind(struct ph_pool *p, uint64_t size, bool *claim)
{
    char signature[8], layout[16] = "";
    uint64_t magic;
    int err = ph_io_read(&p->io, signature, sizeof(signature), 0);

    if (err)
        return err == PH_ETRUNC ? PH_ENOTPOOL : err;
    memcpy(&magic, signature, sizeof(magic));
    *claim = magic == PH_CLAIM_MAGIC;
    if (*claim)
        return 0;
    if (memcmp(signature, PMEM_SIGNATURE, sizeof(signature)) != 0)
        return PH_ENOTPOOL;
    if (size < PMEM_LAYOUT_AT + sizeof(layout))
        return PH_ETRUNC;
    err = ph_io_read(&p->io, layout, sizeof(layout), PMEM_LAYOUT_AT);
    if (err)
        return err;
    return strncmp(layout, PH_POOL_LAYOUT, sizeof(layout)) == 0 ? 0 : PH_ENOTPOOL;
}

/* Numbers of a superblock that later code computes with. */
static bool super_sane(const struct ph_super_pm *s)
{
    uint64_t slots_end;

    if (s->stretch_pages < 16 || s->stretch_pages > (1u << 24) ||
        s->extent_pages < ph_table_pages(s) + s->stretch_pages ||
        s->extent_pages > 2 * (ph_table_pages(s) + s->stretch_pages) + 256 || s->keep < 2 ||
        s->command[sizeof(s->command) - 1] != 0)
        return false;
    if (s->file_size > INT64_MAX || s->file_size < PH_POOL_SIZE_MIN || s->slot_count == 0 ||
        s->slot_count > s->file_size / PH_PAGE || s->slots != s->self + 3 * PH_PAGE)
        return false;
    slots_end = s->slots + s->slot_count * sizeof(struct ph_slot_pm);
    return s->root_object <= s->self && s->root_size <= s->file_size &&
           slots_end <= s->root_object + s->root_size && slots_end <= s->file_size;
}

/* @return 0 if @p page, read from @p offset, is the superblock, PH_ENOENT if it is none. */
static int check_super(struct ph_pool *p, const char *page, uint64_t offset)
{
    struct ph_super_pm s;

    memcpy(&s, page, sizeof(s));
    if (s.magic != PH_SUPER_MAGIC)
        return PH_ENOENT;
    if (s.version != PH_POOL_VERSION)
        return PH_ENEWER;
    if (s.self != offset)
        return PH_ENOENT;
    if (!ph_sum_equal(s.sum, ph_sum(&s, offsetof(struct ph_super_pm, sum))) || !super_sane(&s))
        return PH_ECORRUPT;
    p->super = s;
    return 0;
}

static int find_super(struct ph_pool *p, uint64_t size)
{
    uint64_t end = size < SUPER_SEARCH ? size : SUPER_SEARCH, at = 0;

    while (at < end) {
        off_t data = lseek(p->io.fd, (off_t)at, SEEK_DATA);
        uint64_t n;
        if (data < 0 || (uint64_t)data >= end)
            break;
        at = (uint64_t)data / PH_PAGE * PH_PAGE;
        n = end - at < PH_IO_CHUNK ? end - at : PH_IO_CHUNK;
        n = n / PH_PAGE * PH_PAGE;
        if (n == 0)
            break;
        int err = ph_io_read(&p->io, p->bounce, n, at);
        if (err)
            return err;
        for (uint64_t i = 0; i < n; i += PH_PAGE) {
            err = check_super(p, (char *)p->bounce + i, at + i);
            if (err != PH_ENOENT)
                return err;
        }
        at += n;
    }
    /* Cut off before the superblock, or the superblock is damaged. */
    return size < PH_POOL_SIZE_MIN ? PH_ETRUNC : PH_ECORRUPT;
}

static int examine(struct ph_pool *p)
{
    uint64_t size = 0;
    bool claim = false;
    int err = check_file(p, &size);

    if (!err)
        err = check_kind(p, size, &claim);
    if (claim)
        return err ? err : ph_claim_load(p);
    if (!err)
        err = find_super(p, size);
    if (!err && size < p->super.file_size)
        err = PH_ETRUNC;
    return err;
}

/* Load, again if a writer in another process moved on meanwhile. */
static int load(struct ph_pool *p)
{
    int err = PH_EIO;

    for (int i = 0; i < 100; i++) {
        err = ph_root_load(p);
        if (p->writable || err == PH_EIO || !ph_pool_is_stale(p))
            break;
    }
    return err;
}

int ph_pool_refresh(struct ph_pool *p)
{
    struct ph_root_pm now;
    bool settled;
    int err;

    if (p->writable || p->claimed)
        return 0;
    err = ph_root_read(p, &now, &settled);
    if (!err && now.seq != p->root.seq)
        err = load(p);
    return err;
}

bool ph_pool_is_stale(struct ph_pool *p)
{
    struct ph_root_pm now;
    bool settled;

    /* Two writes of the root may be under way while we look; then neither counts, and the
     * caller looks again. */
    return !p->writable && !p->claimed &&
           (ph_root_read(p, &now, &settled) || now.home_epoch != p->root.home_epoch);
}

/* What is behind the claim or the superblock. */
static int load_rest(struct ph_pool *p)
{
    int err;

    if (p->claimed) /* its maker may be about to make the pool */
        return p->writable ? ph_claim_lock(p->io.fd) : 0;
    if (p->writable && (err = ph_pmem_open(p)) != 0)
        return err;
    if (p->writable)
        ph_io_open_direct(&p->io);
    err = load(p);
    if (!err && p->writable)
        err = ph_queue_start(p);
    if (!err && p->writable)
        err = ph_home_start(p);
    return err;
}

int ph_pool_open_file(struct ph_pool **out, const char *path, int fd, enum ph_pool_mode mode)
{
    struct ph_pool *p = ph_pool_new(path);
    int err;

    *out = NULL;
    if (!p) {
        close(fd);
        return PH_ENOMEM;
    }
    p->writable = mode == PH_POOL_WRITE;
    p->io.fd = fd;
    err = examine(p);
    if (!err)
        err = load_rest(p);
    if (err) {
        ph_pool_close(p);
        return err;
    }
    *out = p;
    return 0;
}

int ph_pool_open(struct ph_pool **out, const char *path, enum ph_pool_mode mode)
{
    /* O_NONBLOCK: opening a FIFO shall not hang. */
    int access = mode == PH_POOL_WRITE ? O_RDWR : O_RDONLY,
        fd = open(path, access | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    *out = NULL;
    if (fd < 0)
        return ph_pool_open_error(errno);
    return ph_pool_open_file(out, path, fd, mode);
}

bool ph_pool_renamed(const struct ph_pool *p, char name[PATH_MAX])
{
    return ph_name_find(p->io.fd, p->path, name);
}

/* ---- state ------------------------------------------------------------------------ */

void ph_pool_get_info(struct ph_pool *p, struct ph_pool_info *out)
{
    struct stat st;

    pthread_mutex_lock(&p->lock);
    ph_pool_refresh(p);
    *out = (struct ph_pool_info){
        .state = p->root.state == PH_POOL_FINISHED ? PH_POOL_FINISHED : PH_POOL_RUNNING,
        .exit_status = p->root.exit_status,
        .id = p->super.id[0],
        .created = p->super.created,
        .newest = p->epochs ? p->epoch[p->epochs - 1].info.number : 0,
        .oldest = p->epochs ? p->root.oldest : 0,
        .home_epoch = p->root.home_epoch,
        .keep = p->super.keep,
        .size = p->super.file_size,
        .home_pages = p->root.home_pages,
        .pages_appended = p->pages_appended,
        .pages_migrated = p->pages_migrated,
        .pages_filtered = p->pages_filtered,
    };
    for (size_t i = 0; i < p->epochs; i++)
        out->log_bytes += p->epoch[i].info.bytes;
    pthread_mutex_unlock(&p->lock);
    memcpy(out->command, p->super.command, sizeof(out->command));
    if (fstat(p->io.fd, &st) == 0)
        out->allocated = (uint64_t)st.st_blocks * 512;
}

size_t ph_pool_epochs(struct ph_pool *p, struct ph_epoch_info *out, size_t max)
{
    size_t n = 0;

    pthread_mutex_lock(&p->lock);
    ph_pool_refresh(p);
    for (size_t i = p->epochs; i-- > 0 && p->epoch[i].info.number >= p->root.oldest;) {
        if (n < max)
            out[n] = p->epoch[i].info;
        n++;
    }
    pthread_mutex_unlock(&p->lock);
    return n;
}

int ph_pool_finish(struct ph_pool *p, int exit_status)
{
    int err;

    if (!p->writable || p->claimed || p->writing.number)
        return PH_EUSAGE;
    pthread_mutex_lock(&p->lock);
    err = ph_root_settle(p);
    if (!err) {
        p->root.state = PH_POOL_FINISHED;
        p->root.exit_status = exit_status;
        err = ph_root_write(p);
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

static int drop_after(struct ph_pool *p, uint64_t number)
{
    size_t at = p->epochs;
    int err;

    while (at && p->epoch[at - 1].info.number > number)
        at--;
    if (at == 0 || p->epoch[at - 1].info.number != number || number < p->root.oldest)
        return PH_ENOEPOCH;
    p->epochs = at;
    p->root.state = PH_POOL_RUNNING;
    p->root.exit_status = 0;
    ph_root_set_recent(p);
    err = ph_root_write_both(p); /* P5 */
    return err ? err : ph_root_load(p);
}

int ph_pool_rewind(struct ph_pool *p, uint64_t number)
{
    int err, start_err;

    if (!p->writable || p->writing.number)
        return PH_EUSAGE;
    if (p->claimed)
        return PH_ENOEPOCH;
    ph_pool_file_abort(p);
    ph_home_stop(p); /* so that nothing else holds on to the state that is rebuilt */
    p->stop = false;
    pthread_mutex_lock(&p->lock);
    err = drop_after(p, number);
    pthread_mutex_unlock(&p->lock);
    start_err = ph_home_start(p);
    return err ? err : start_err;
}
