/* SPDX-License-Identifier: MIT */
/*
 * pool_files.c - copies of the files that the program maps
 *
 * The files are a chain like the log: content, then a header page that names the file before;
 * the root record names the newest header. It only grows, in extents of its own, until it is
 * given up as a whole. So the older root record always names a part of what the newer one
 * names, and publishing needs one record only (P5).
 *
 *   none --begin--> storing --append...--> end --> ended --publish--> published
 *                      |  a failure                  |  the pool is closed
 *                      +---------- abort ------------+-----> nothing was ever there
 *
 * Everything but giving up is called by the writer's thread alone. The lock is held where
 * extents and the root are changed.
 *
 * Invariants
 *  F1  files.file[0 .. root.files) is the chain of the newer root record; what follows has
 *      been ended and not yet been published.
 *  F2  Only extents with PH_EXTENT_FILES hold anything of files, and no other extent has that
 *      role but those that the file being stored has taken.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Room on the file system that is left to the epochs. */
#define SPARE (UINT64_C(64) << 20)

struct ph_storing {
    struct ph_stored_pm pm;
    uint64_t stored; /* bytes */
    XXH3_state_t *hash;
    uint32_t start_slot, start_page; /* where the files ended before */
    uint32_t taken[PH_FILE_PIECES + 1];
    uint32_t ntaken;
};

static struct ph_sum_pm digest(const XXH3_state_t *state)
{
    XXH128_hash_t h = XXH3_128bits_digest(state);

    return (struct ph_sum_pm){h.low64, h.high64};
}

static void free_storing(struct ph_storing *s)
{
    if (s)
        XXH3_freeState(s->hash);
    free(s);
}

void ph_files_free(struct ph_pool *p)
{
    free(p->files.file);
    free_storing(p->files.active);
    p->files = (struct ph_files){.slot = PH_NO_SLOT};
}

static int push(struct ph_pool *p, uint64_t header, const struct ph_stored_pm *pm)
{
    struct ph_files *f = &p->files;

    if (ph_pool_grow(&f->file, &f->capacity, f->n + 1, sizeof(*f->file)))
        return PH_ENOMEM;
    f->file[f->n].header = header;
    f->file[f->n++].pm = *pm;
    return 0;
}

/* ---- loading ------------------------------------------------------------------------ */

static bool sane(const struct ph_pool *p, const struct ph_stored_pm *pm, uint64_t number)
{
    uint64_t total = 0;

    if (pm->magic != PH_FILE_MAGIC || pm->version != PH_POOL_VERSION || pm->number != number ||
        memcmp(pm->id, p->super.id, sizeof(pm->id)) != 0 ||
        !ph_sum_equal(pm->sum, ph_sum(pm, offsetof(struct ph_stored_pm, sum))))
        return false;
    if (pm->pieces > PH_FILE_PIECES || pm->path[sizeof(pm->path) - 1] != 0)
        return false;
    for (uint32_t i = 0; i < pm->pieces; i++) {
        const struct ph_piece_pm *piece = &pm->piece[i];
        if (piece->size == 0 || !ph_in_file(p, piece->offset, piece->size) ||
            (i + 1 < pm->pieces && piece->size % PH_PAGE))
            return false;
        total += piece->size;
    }
    return total == pm->size;
}

static int load_one(struct ph_pool *p, uint64_t offset, uint64_t number)
{
    struct ph_stored_pm pm;
    int err;

    if (!ph_in_file(p, offset, PH_PAGE))
        return PH_ECORRUPT;
    err = ph_io_read(&p->io, &pm, sizeof(pm), offset);
    if (err)
        return err == PH_EIO ? err : PH_ECORRUPT;
    if (!sane(p, &pm, number))
        return PH_ECORRUPT;
    err = ph_extent_mark_file(p, offset, PH_PAGE);
    for (uint32_t i = 0; i < pm.pieces && !err; i++)
        err = ph_extent_mark_file(p, pm.piece[i].offset, pm.piece[i].size);
    return err ? err : push(p, offset, &pm);
}

/* Newest first, as the chain is linked; then turned round. */
static int load_chain(struct ph_pool *p)
{
    struct ph_files *f = &p->files;
    uint64_t header = p->root.files_head;
    int err = 0;

    for (uint64_t number = p->root.files; number && !err; number--) {
        err = load_one(p, header, number);
        if (!err)
            header = f->file[f->n - 1].pm.prev_header;
    }
    for (size_t i = 0, j = f->n; i + 1 < j; i++) {
        struct ph_stored one = f->file[i];
        f->file[i] = f->file[--j];
        f->file[j] = one;
    }
    return err;
}

static void free_extents(struct ph_pool *p)
{
    for (uint32_t i = 0; i < p->extents; i++)
        if (p->extent[p->by_offset[i]].role == PH_EXTENT_FILES)
            p->extent[p->by_offset[i]].role = PH_EXTENT_FREE;
}

int ph_files_load(struct ph_pool *p)
{
    struct ph_files *f = &p->files;
    int err;

    ph_files_free(p);
    err = load_chain(p);
    if (err == PH_ECORRUPT) { /* P10 */
        ph_files_free(p);
        free_extents(p);
        p->root.files = p->root.files_head = 0;
        p->unsettled = true;
        return 0;
    }
    if (!err && f->n) {
        uint64_t header = f->file[f->n - 1].header;
        f->slot = ph_extent_find(p, header);
        f->page = (uint32_t)((header - p->extent[f->slot].offset) / PH_PAGE) + 1;
    }
    return err;
}

/* ---- giving up ------------------------------------------------------------------------ */

int ph_files_give_up(struct ph_pool *p)
{
    bool any = ph_extent_count(p, PH_EXTENT_FILES) != 0;
    int err = 0;

    if (!any)
        return PH_ENOEPOCH;
    if (p->root.files) {
        p->root.files = p->root.files_head = 0;
        err = ph_root_write_both(p); /* P5 */
    }
    if (err)
        return err;
    for (uint32_t i = 0; i < p->extents; i++) {
        const struct ph_extent *e = &p->extent[p->by_offset[i]];
        if (e->role == PH_EXTENT_FILES)
            ph_io_discard(&p->io, e->offset, p->super.extent_pages * PH_PAGE);
    }
    free_extents(p);
    ph_files_free(p);
    p->files.refused = true;
    return 0;
}

/* ---- storing -------------------------------------------------------------------------- */

static bool matches(const struct ph_stored_pm *pm, const struct ph_file_id *id,
                    struct ph_sum_pm path_sum)
{
    return pm->size == id->size && pm->mtime_ns == id->mtime_ns &&
           ph_sum_equal(pm->path_sum, path_sum);
}

const struct ph_stored *ph_pool_file_find(const struct ph_pool *p, const struct ph_file_id *id)
{
    struct ph_sum_pm path_sum = ph_sum(id->path, strlen(id->path));

    for (size_t i = p->files.n; i-- > 0;)
        if (matches(&p->files.file[i].pm, id, path_sum))
            return &p->files.file[i];
    return NULL;
}

static void fill_header(const struct ph_pool *p, struct ph_stored_pm *pm,
                        const struct ph_file_id *id)
{
    size_t length = strlen(id->path), max = sizeof(pm->path) - 1;

    *pm = (struct ph_stored_pm){.magic = PH_FILE_MAGIC,
                                .version = PH_POOL_VERSION,
                                .id = {p->super.id[0], p->super.id[1]},
                                .size = id->size,
                                .mtime_ns = id->mtime_ns,
                                .path_sum = ph_sum(id->path, length)};
    memcpy(pm->path, length > max ? id->path + length - max : id->path,
           length > max ? max : length);
}

int ph_pool_file_begin(struct ph_pool *p, const struct ph_file_id *id)
{
    struct ph_storing *s;
    int err;

    /* A program of version 1 would take the files for free space. */
    if (!p->writable || p->claimed || p->files.active || p->super.version < 2)
        return PH_EUSAGE;
    if (p->broken || p->files.refused)
        return p->broken ? p->broken : PH_EFULL;
    if (id->size > PH_FILE_PIECES * (uint64_t)(p->super.extent_pages - 1) * PH_PAGE)
        return PH_EUNSUPPORTED;
    err = ph_io_space(&p->io, id->size + SPARE);
    if (err)
        return err;
    s = calloc(1, sizeof(*s));
    if (!s || !(s->hash = XXH3_createState())) {
        free(s);
        return PH_ENOMEM;
    }
    pthread_mutex_lock(&p->lock);
    err = ph_root_settle(p);
    pthread_mutex_unlock(&p->lock);
    if (err) {
        free_storing(s);
        return err;
    }
    fill_header(p, &s->pm, id);
    XXH3_128bits_reset(s->hash);
    s->start_slot = p->files.slot;
    s->start_page = p->files.page;
    p->files.active = s;
    return 0;
}

/* Take up to @p want pages at the end of the files. */
static int take_pages(struct ph_pool *p, uint64_t want, uint64_t *offset, uint64_t *got)
{
    struct ph_files *f = &p->files;
    struct ph_storing *s = f->active;
    int err = 0;

    pthread_mutex_lock(&p->lock);
    if (f->slot == PH_NO_SLOT || f->page == p->super.extent_pages) {
        uint32_t slot;
        err = s->ntaken == PH_FILE_PIECES + 1
                  ? PH_EUNSUPPORTED
                  : ph_extent_take(p, PH_EXTENT_FILES, false, &slot);
        if (!err) {
            s->taken[s->ntaken++] = f->slot = slot;
            f->page = 0;
        }
    }
    if (!err) {
        uint64_t left = p->super.extent_pages - f->page;
        *got = want < left ? want : left;
        *offset = p->extent[f->slot].offset + f->page * PH_PAGE;
        f->page += (uint32_t)*got;
    }
    pthread_mutex_unlock(&p->lock);
    return err;
}

static int add_piece(struct ph_stored_pm *pm, uint64_t offset, uint64_t size)
{
    struct ph_piece_pm *last = pm->pieces ? &pm->piece[pm->pieces - 1] : NULL;

    if (last && last->offset + last->size == offset) {
        last->size += size;
        return 0;
    }
    if (pm->pieces == PH_FILE_PIECES)
        return PH_EUNSUPPORTED;
    pm->piece[pm->pieces++] = (struct ph_piece_pm){offset, size};
    return 0;
}

/* Write @p size bytes at the end: whole pages as they are, the rest of one by way of bounce. */
static int write_out(struct ph_pool *p, const char *bytes, uint64_t size, uint64_t offset)
{
    uint64_t whole = size / PH_PAGE * PH_PAGE;
    int err = 0;

    for (uint64_t at = 0; at < whole && !err; at += PH_IO_CHUNK) {
        uint64_t n = whole - at < PH_IO_CHUNK ? whole - at : PH_IO_CHUNK;
        err = ph_io_write(&p->io, bytes + at, n, offset + at);
    }
    if (!err && size > whole) {
        memset(p->bounce, 0, PH_PAGE);
        memcpy(p->bounce, bytes + whole, size - whole);
        err = ph_io_write(&p->io, p->bounce, PH_PAGE, offset + whole);
    }
    return err ? ph_pool_fail(p, err, "writing a file's content") : 0;
}

int ph_pool_file_append(struct ph_pool *p, const void *bytes, size_t size)
{
    struct ph_storing *s = p->files.active;
    const char *from = bytes;

    if (!s) /* none was begun, or an epoch needed the room */
        return p->files.refused ? PH_EFULL : PH_EUSAGE;
    if (size > s->pm.size - s->stored || s->stored % PH_PAGE)
        return PH_EUSAGE;
    XXH3_128bits_update(s->hash, bytes, size);
    while (size) {
        uint64_t offset, got, part;
        int err = take_pages(p, (size + PH_PAGE - 1) / PH_PAGE, &offset, &got);
        if (err)
            return err;
        part = got * PH_PAGE < size ? got * PH_PAGE : size;
        err = add_piece(&s->pm, offset, part);
        if (!err)
            err = write_out(p, from, part, offset);
        if (err)
            return err;
        s->stored += part;
        from += part;
        size -= part;
    }
    return 0;
}

/* Give back what the file being stored has taken. */
static void give_back(struct ph_pool *p)
{
    struct ph_storing *s = p->files.active;

    pthread_mutex_lock(&p->lock);
    while (s->ntaken)
        p->extent[s->taken[--s->ntaken]].role = PH_EXTENT_FREE;
    p->files.slot = s->start_slot;
    p->files.page = s->start_page;
    pthread_mutex_unlock(&p->lock);
}

void ph_pool_file_abort(struct ph_pool *p)
{
    if (!p->files.active)
        return;
    give_back(p);
    free_storing(p->files.active);
    p->files.active = NULL;
}

/* If the same content is there already, use it and give back the room. */
static void use_equal(struct ph_pool *p, struct ph_stored_pm *pm)
{
    const struct ph_files *f = &p->files;

    for (size_t i = f->n; i-- > 0;) {
        const struct ph_stored_pm *other = &f->file[i].pm;
        if (other->size == pm->size && ph_sum_equal(other->content_sum, pm->content_sum)) {
            give_back(p);
            memcpy(pm->piece, other->piece, sizeof(pm->piece));
            pm->pieces = other->pieces;
            return;
        }
    }
}

int ph_pool_file_end(struct ph_pool *p)
{
    struct ph_files *f = &p->files;
    struct ph_storing *s = f->active;
    struct ph_stored_pm *pm;
    uint64_t offset, got;
    int err;

    if (!s)
        return f->refused ? PH_EFULL : PH_EUSAGE;
    if (s->stored != s->pm.size)
        return PH_EUSAGE;
    pm = &s->pm;
    pm->content_sum = digest(s->hash);
    use_equal(p, pm);
    pm->number = f->n + 1;
    pm->prev_header = f->n ? f->file[f->n - 1].header : 0;
    pm->sum = ph_sum(pm, offsetof(struct ph_stored_pm, sum));
    err = take_pages(p, 1, &offset, &got);
    if (!err) {
        memcpy(p->bounce, pm, sizeof(*pm));
        err = ph_io_write(&p->io, p->bounce, PH_PAGE, offset);
    }
    if (!err)
        err = push(p, offset, pm);
    if (err)
        return err;
    free_storing(s);
    f->active = NULL;
    return 0;
}

int ph_pool_file_publish(struct ph_pool *p)
{
    struct ph_root_pm old;
    int err;

    if (!p->writable || p->claimed)
        return PH_EUSAGE;
    if (p->broken)
        return p->broken;
    if (p->files.n == p->root.files)
        return 0;
    err = ph_tuning.wrong == PH_WRONG_NO_FILE_BARRIER ? 0 : ph_pool_sync(p); /* P1 */
    if (err)
        return err;
    pthread_mutex_lock(&p->lock);
    old = p->root;
    p->root.files = p->files.n;
    p->root.files_head = p->files.file[p->files.n - 1].header;
    err = ph_root_write(p);
    if (err)
        p->root = old;
    pthread_mutex_unlock(&p->lock);
    return err;
}

/* ---- reading -------------------------------------------------------------------------- */

size_t ph_pool_files(const struct ph_pool *p)
{
    return p->files.n;
}

const struct ph_stored *ph_pool_file(const struct ph_pool *p, size_t i)
{
    return &p->files.file[i];
}

const char *ph_stored_path(const struct ph_stored *file)
{
    return file->pm.path;
}

uint64_t ph_stored_size(const struct ph_stored *file)
{
    return file->pm.size;
}

uint64_t ph_stored_place(const struct ph_stored *file, uint64_t at, uint64_t *npages)
{
    const struct ph_stored_pm *pm = &file->pm;

    *npages = 0;
    for (uint32_t i = 0; i < pm->pieces; i++) {
        const struct ph_piece_pm *piece = &pm->piece[i];
        if (at < piece->size) {
            *npages = (piece->size - at + PH_PAGE - 1) / PH_PAGE;
            return piece->offset + at;
        }
        at -= piece->size;
    }
    return 0;
}

int ph_stored_verify(struct ph_pool *p, const struct ph_stored *file)
{
    char *buffer = aligned_alloc(PH_PAGE, PH_IO_CHUNK);
    XXH3_state_t *state = XXH3_createState();
    int err = buffer && state ? 0 : PH_ENOMEM;

    if (!err)
        XXH3_128bits_reset(state);
    for (uint32_t i = 0; i < file->pm.pieces && !err; i++) {
        const struct ph_piece_pm *piece = &file->pm.piece[i];
        for (uint64_t at = 0; at < piece->size && !err; at += PH_IO_CHUNK) {
            uint64_t n = piece->size - at < PH_IO_CHUNK ? piece->size - at : PH_IO_CHUNK;
            err = ph_io_read(&p->io, buffer, n, piece->offset + at);
            if (!err)
                XXH3_128bits_update(state, buffer, n);
        }
    }
    if (err == PH_ETRUNC || (!err && !ph_sum_equal(digest(state), file->pm.content_sum)))
        err = PH_ECORRUPT;
    free(buffer);
    XXH3_freeState(state);
    return err;
}

bool ph_stored_equals(struct ph_pool *p, const struct ph_stored *file, int fd, bool whole)
{
    struct ph_io other = {fd, -1};
    char *buffer = aligned_alloc(PH_PAGE, 2 * PH_IO_CHUNK), *theirs = buffer + PH_IO_CHUNK;
    uint64_t end = whole || file->pm.size < PH_PAGE ? file->pm.size : PH_PAGE;
    bool equal = buffer != NULL;

    for (uint64_t at = 0, n; equal && at < end; at += n) {
        uint64_t pages, place = ph_stored_place(file, at, &pages);
        n = pages * PH_PAGE < PH_IO_CHUNK ? pages * PH_PAGE : PH_IO_CHUNK;
        n = n < end - at ? n : end - at;
        equal = ph_io_read(&p->io, buffer, n, place) == 0 &&
                ph_io_read(&other, theirs, n, at) == 0 && memcmp(buffer, theirs, n) == 0;
    }
    free(buffer);
    return equal;
}
