/* SPDX-License-Identifier: MIT */
/*
 * undo.c - files that the program has made shorter since the epoch get back what was cut off
 *
 * The cuts are in the directory of allocator/undo.h. Those that came after the epoch are
 * undone, the newest first, when all memory is right and before the program takes its first
 * step. Afterwards the file is cut to its length at the epoch, as all are. It can be done
 * again: a recovery that ends half-way has lost nothing.
 */
#include "files.h"

#include "allocator/undo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *ph_recovery_undo_path(const struct ph_undo *u)
{
    return (const char *)(u->head + 1);
}

static const struct ph_undo_piece_pm *first_piece(const struct ph_undo *u)
{
    return (const void *)(ph_recovery_undo_path(u) +
                          ((u->head->path_size + UINT64_C(7)) & ~UINT64_C(7)));
}

static const struct ph_undo_piece_pm *next_piece(const struct ph_undo_piece_pm *p)
{
    return (const void *)((const char *)(p + 1) + ((p->size + 7) & ~UINT64_C(7)));
}

/** The head and the path. */
static bool has_head(const struct ph_undo *u)
{
    const struct ph_undo_pm *h = u->head;
    return u->size >= sizeof *h && h->magic == PH_UNDO_MAGIC && h->epoch == u->epoch &&
           h->from <= h->to && h->to <= INT64_MAX && h->path_size <= u->size - sizeof *h &&
           h->path_size && ph_recovery_undo_path(u)[h->path_size - 1] == 0 &&
           (!(h->flags & (PH_UNDO_RENAMED | PH_UNDO_REMOVED)) ||
            strlen(ph_recovery_undo_path(u)) + 1 < h->path_size);
}

/** U2 */
static bool is_whole(const struct ph_undo *u)
{
    const struct ph_undo_pm *h = u->head;
    const char *end = (const char *)h + u->size;
    if (u->size % 8)
        return false;
    for (const struct ph_undo_piece_pm *p = first_piece(u);; p = next_piece(p)) {
        uint64_t room = (uint64_t)(end - (const char *)p);
        if ((const char *)p > end || room < sizeof *p)
            return false;
        if (p->offset == PH_UNDO_END)
            return room == sizeof *p &&
                   p->size == ph_undo_hash(PH_UNDO_SEED, (const uint64_t *)h,
                                           (u->size - sizeof *p) / 8);
        if (p->offset < h->from || p->offset > h->to || p->size > h->to - p->offset ||
            p->size > room - sizeof *p)
            return false;
    }
}

/** Newest first. */
static int compare(const void *a, const void *b)
{
    const struct ph_undo *x = a, *y = b;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? 1 : -1;
    return (x->number < y->number) - (x->number > y->number);
}

static int add(struct ph_recovery *r, int dir, const char *name)
{
    struct ph_undo u;
    struct stat st;
    if (!ph_undo_name(name, &u.epoch, &u.number) || u.epoch < r->record->epoch)
        return 0;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        snprintf(r->detail, sizeof r->detail, "%.3800s/%.64s: %s", r->undo_directory, name,
                 strerror(errno));
        return PH_EFILES;
    }
    u.size = (uint64_t)st.st_size;
    void *map = u.size ? mmap(NULL, u.size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    u.head = map;
    if (map == MAP_FAILED || !has_head(&u))
        return 0;
    u.written_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    u.copied = u.head->self != st.st_ino;
    u.forgotten = u.head->flags & PH_UNDO_FORGOTTEN;
    if (!u.forgotten && !is_whole(&u))
        return 0;
    struct ph_undo *more = realloc(r->undo, (r->nundo + 1) * sizeof *more);
    if (!more)
        return PH_ENOMEM;
    r->undo = more;
    r->undo[r->nundo++] = u;
    return 0;
}

int ph_recovery_undo_read(struct ph_recovery *r)
{
    struct stat st;
    ph_undo_directory(r->pool_path, r->undo_directory);
    DIR *d = r->undo_directory[0] ? opendir(r->undo_directory) : NULL;
    if (!d)
        return 0;
    int rc = 0;
    if (fstat(dirfd(d), &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 022)) {
        snprintf(r->detail, sizeof r->detail, "%s", r->undo_directory);
        rc = PH_EOWNER;
    }
    for (const struct dirent *e; rc == 0 && (e = readdir(d));)
        rc = add(r, dirfd(d), e->d_name);
    closedir(d);
    if (r->nundo)
        qsort(r->undo, r->nundo, sizeof *r->undo, compare);
    return rc;
}

/** Whether cut @p u is one of file @p f. */
static bool is_of(const struct ph_undo *u, const struct ph_file_pm *f)
{
    return f->kind == PH_FILE_REGULAR && f->same_as < 0 && !(f->flags & PH_FILE_DELETED) &&
           !(u->head->flags & (PH_UNDO_RENAMED | PH_UNDO_REMOVED)) && u->head->ino == f->ino &&
           u->head->dev == f->dev;
}

bool ph_recovery_is_cut(const struct ph_recovery *r, const struct ph_file_pm *f, bool *copied)
{
    bool is_cut = false;
    for (size_t i = 0; i < r->nundo; i++)
        if (is_of(&r->undo[i], f)) {
            is_cut = true;
            *copied = r->undo[i].copied;
        }
    return is_cut;
}

uint64_t ph_recovery_undone_size(const struct ph_recovery *r, const struct ph_file_pm *f,
                                 uint64_t size)
{
    for (size_t i = 0; i < r->nundo; i++)
        if (is_of(&r->undo[i], f) && size >= r->undo[i].head->from)
            size = r->undo[i].head->to;
    return size;
}

bool ph_recovery_undo_forgotten(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    bool forgotten = false;
    for (size_t i = 0; i < r->nundo; i++)
        forgotten |= r->undo[i].forgotten && is_of(&r->undo[i], f);
    return forgotten;
}

static int fail(struct ph_recovery *r, const char *path, const char *what)
{
    snprintf(r->detail, sizeof r->detail,
             "%s: %s, when what the program had cut off was to be put back: %s; nothing is "
             "lost, try again",
             path, what, strerror(errno));
    return PH_EFILES;
}

static bool write_all(int fd, const char *bytes, uint64_t n, uint64_t at)
{
    while (n) {
        ssize_t w = pwrite(fd, bytes, n, (off_t)at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        bytes += w;
        at += (uint64_t)w;
        n -= (uint64_t)w;
    }
    return true;
}

static bool undo(int fd, const struct ph_undo *u)
{
    if (ftruncate(fd, (off_t)u->head->from) != 0 || ftruncate(fd, (off_t)u->head->to) != 0)
        return false;
    for (const struct ph_undo_piece_pm *p = first_piece(u); p->offset != PH_UNDO_END;
         p = next_piece(p))
        if (!write_all(fd, (const char *)(p + 1), p->size, p->offset))
            return false;
    return true;
}

/** All cuts of one file. */
static int undo_file(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const char *path = ph_recovery_path(r, f);
    int fd = -1, rc = 0;
    struct stat st;
    for (size_t i = 0; i < r->nundo && rc == 0; i++) {
        if (!is_of(&r->undo[i], f))
            continue;
        if (fd < 0 && (fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0)
            return fail(r, path, "opening");
        if (!undo(fd, &r->undo[i]))
            rc = fail(r, path, "writing");
    }
    if (fd < 0)
        return 0;
    if (rc == 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size > f->size &&
        ftruncate(fd, (off_t)f->size) != 0)
        rc = fail(r, path, "cutting");
    if (rc == 0 && fdatasync(fd) != 0)
        rc = fail(r, path, "syncing");
    close(fd);
    return rc;
}

int ph_recovery_undo(struct ph_recovery *r)
{
    const struct ph_file_pm *f =
        (const void *)((const char *)r->record + r->record->files.offset);
    int rc = 0;
    for (uint64_t i = 0; i < r->record->files.count && rc == 0; i++)
        if (!ph_recovery_keeps(r, &f[i]) && !ph_recovery_of_database(r, &f[i]))
            rc = undo_file(r, &f[i]);
    if (rc == 0)
        rc = ph_recovery_undo_names(r);
    /* Epochs after this one will get their numbers anew, and must not find their cuts. */
    if (rc == 0)
        ph_undo_remove(r->undo_directory, r->record->epoch + 1, UINT64_MAX);
    return rc;
}

void ph_recovery_undo_free(struct ph_recovery *r)
{
    for (size_t i = 0; i < r->nundo; i++)
        munmap((void *)(uintptr_t)r->undo[i].head, r->undo[i].size);
    free(r->undo);
    r->undo = NULL;
    r->nundo = 0;
}
