/* SPDX-License-Identifier: MIT */
/*
 * undo.c - what the program has done to its files since the epoch is undone
 *
 * It will do it again. All that is in the directory of allocator/undo.h is undone, the newest
 * first, when all memory is right and before the program takes its first step. Afterwards the
 * files that it has open are cut to their lengths at the epoch. It can be done again: a
 * recovery that ends half-way has lost nothing.
 *
 *   X1  Only the very thing is touched: by its inode and time of birth, or, of a file that was
 *       opened to be written, a copy, which has the same bytes before the place where it ended
 *       (locate.c); or, of one that bytes were taken from, what has its name, if the note is in
 *       a copied directory, too. Whatever else has its name stays.
 *   X2  What is cut off a file that was not open at the epoch, or removed with it, may be
 *       somebody's who has worked with it since: up to PH_UNDO_ASIDE_MAX bytes of each are put
 * aside until the run ends.
 */
#include "files.h"

#include "allocator/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** Whether @p u is about the bytes of file @p f. */
static bool is_of(const struct ph_undo *u, const struct ph_file_pm *f)
{
    return f->kind == PH_FILE_REGULAR && f->same_as < 0 && !(f->flags & PH_FILE_DELETED) &&
           (u->kind == PH_UNDO_BYTES || u->kind == PH_UNDO_OPENED) && u->ino == f->ino &&
           u->dev == f->dev;
}

static bool cuts(const struct ph_undo *u)
{
    return u->kind == PH_UNDO_BYTES && !(u->head->flags & PH_UNDO_MIDDLE);
}

bool ph_recovery_is_cut(const struct ph_recovery *r, const struct ph_file_pm *f, bool *copied)
{
    bool is_cut = false;
    for (size_t i = 0; i < r->nundo; i++)
        if (is_of(r->undo[i], f) && cuts(r->undo[i])) {
            is_cut = true;
            *copied = r->undo[i]->copied;
        }
    return is_cut;
}

uint64_t ph_recovery_undone_size(const struct ph_recovery *r, const struct ph_file_pm *f,
                                 uint64_t size)
{
    for (size_t i = 0; i < r->nundo; i++)
        if (is_of(r->undo[i], f) && cuts(r->undo[i]) && size >= r->undo[i]->head->from)
            size = r->undo[i]->head->to;
    return size;
}

bool ph_recovery_undo_forgotten(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    bool forgotten = false;
    for (size_t i = 0; i < r->nundo; i++)
        forgotten |= r->undo[i]->forgotten && is_of(r->undo[i], f);
    return forgotten;
}

bool ph_recovery_undo_overwritten(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    bool overwritten = false;
    for (size_t i = 0; i < r->nundo; i++)
        overwritten |= is_of(r->undo[i], f) && r->undo[i]->head && !cuts(r->undo[i]);
    return overwritten;
}

int ph_undo_fail(struct ph_recovery *r, const char *path, const char *what)
{
    snprintf(r->detail, sizeof r->detail,
             "%.3800s: %s, when it was to be as it was at the epoch: %s; nothing is lost, try "
             "again",
             path, what, strerror(errno));
    return PH_EFILES;
}

/** The file of the program's that @p u is about, if it had it open at the epoch. */
static const struct ph_file_pm *open_at_epoch(const struct ph_recovery *r,
                                              const struct ph_undo *u)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (uint64_t i = 0; i < n; i++)
        if (is_of(u, &f[i]))
            return &f[i];
    return NULL;
}

bool ph_recovery_undo_kept(const struct ph_recovery *r, uint64_t dev, uint64_t ino,
                           const char *path)
{
    bool kept = false;
    for (size_t i = 0; r->undo_kept && i < r->nundo && !kept; i++) {
        const struct ph_undo *k = r->undo[i];
        size_t n = k->kind == PH_UNDO_KEPT ? strlen(k->path) : 0;
        bool same = n && strncmp(path, k->path, n) == 0;
        kept = n && (k->ino ? (k->ino == ino && k->dev == dev) || (same && !path[n])
                            : same && (!path[n] || path[n] == '/'));
    }
    return kept;
}

bool ph_undo_is_left(const struct ph_recovery *r, const struct ph_undo *u)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    bool is_left = r->keep_files || ph_recovery_keeps_path(r, u->path) ||
                   ph_recovery_undo_kept(r, u->dev, u->ino, u->path) ||
                   (u->kind == PH_UNDO_RENAMED && ph_recovery_keeps_path(r, u->to));
    for (uint64_t i = 0; i < n && !is_left; i++)
        is_left = f[i].kind == PH_FILE_REGULAR && f[i].ino == u->ino && f[i].dev == u->dev &&
                  (f[i].flags & PH_FILE_KEPT);
    return is_left;
}

bool ph_undo_is_very_thing(const struct ph_undo *u, int dir, const char *path)
{
    struct statx sx;
    return ph_recovery_is_inode(u->ino, u->birth_ns, dir, path, &sx) ||
           (u->first_ino &&
            ph_recovery_is_inode(u->first_ino, u->first_birth_ns, dir, path, &sx));
}

/* ---- bytes ------------------------------------------------------------------------------ */

void ph_undo_entry(const struct ph_recovery *r, const struct ph_undo *u, const char *suffix,
                   char buf[PATH_MAX])
{
    snprintf(buf, PATH_MAX, "%.3900s/%llu-%llu%s", r->undo_directory,
             (unsigned long long)u->epoch, (unsigned long long)u->number, suffix);
}

/** X2 */
static void put_aside(struct ph_recovery *r, const struct ph_undo *u, int fd, uint64_t from,
                      uint64_t to)
{
    char path[PATH_MAX], buf[65536];
    ssize_t n;
    if (to <= from || to - from > PH_UNDO_ASIDE_MAX)
        return;
    ph_undo_entry(r, u, PH_UNDO_ASIDE, path);
    int out =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    while (out >= 0 && from < to && (n = pread(fd, buf, sizeof buf, (off_t)from)) > 0 &&
           write(out, buf, (size_t)n) == n)
        from += (uint64_t)n;
    if (out >= 0) {
        close(out);
        r->put_aside++;
    }
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

/** Blocks that the file has shared (PH_UNDO_CLONED) are shared again, or copied. */
static bool give_clone(const struct ph_recovery *r, int fd, const struct ph_undo *u)
{
    char path[PATH_MAX];
    ph_undo_entry(r, u, "", path);
    off_t from = PH_UNDO_CLONE, to = (off_t)u->head->from;
    int in = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = in < 0 ? -1 : 1;
    while (n > 0 && to < (off_t)u->head->to)
        n = copy_file_range(in, &from, fd, &to, u->head->to - (uint64_t)to, 0);
    if (in >= 0)
        close(in);
    uint64_t done = (uint64_t)to - u->head->from;
    return write_all(fd, (const char *)u->head + PH_UNDO_CLONE + done,
                     u->head->to - (uint64_t)to, (uint64_t)to);
}

static bool give_back(const struct ph_recovery *r, int fd, const struct ph_undo *u)
{
    if (cuts(u) &&
        (ftruncate(fd, (off_t)u->head->from) != 0 || ftruncate(fd, (off_t)u->head->to) != 0))
        return false;
    if (u->head->flags & PH_UNDO_CLONED)
        return give_clone(r, fd, u);
    for (const struct ph_undo_piece_pm *p = ph_undo_first_piece(u->head);
         p->offset != PH_UNDO_END; p = ph_undo_next_piece(p))
        if (!write_all(fd, (const char *)(p + 1), p->size, p->offset))
            return false;
    return true;
}

/** X1 */
static bool is_meant(const struct ph_undo *u, const struct ph_file_pm *f, int fd,
                     const struct stat *st)
{
    if (f || ph_undo_is_very_thing(u, fd, ""))
        return true; /* of those that are open locate.c has looked */
    if (u->kind == PH_UNDO_BYTES && u->copied)
        return true; /* of what it was little may be left */
    return u->kind == PH_UNDO_OPENED && u->sum && (uint64_t)st->st_size >= u->value &&
           ph_tail_sum(fd, u->value) == u->sum;
}

/** @return whether it can be written to. */
static bool open_it(const char *path, int *fd, struct stat *st)
{
    *fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*fd < 0 && errno == EACCES)
        *fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return *fd >= 0 && fstat(*fd, st) == 0 && S_ISREG(st->st_mode);
}

static int undo_bytes(struct ph_recovery *r, const struct ph_undo *u)
{
    const struct ph_file_pm *f = open_at_epoch(r, u);
    const char *path = f ? ph_recovery_path(r, f) : u->path;
    struct stat st;
    int fd, rc = 0;
    if (f && !ph_recovery_is_very_file(f, AT_FDCWD, path) &&
        ph_recovery_is_very_file(f, AT_FDCWD, u->path))
        path = u->path; /* it has got its name back meanwhile */
    if (!open_it(path, &fd, &st) || !is_meant(u, f, fd, &st) ||
        (!f && ph_recovery_path_of_database(path))) {
        if (fd >= 0)
            close(fd);
        return f && fd < 0 ? ph_undo_fail(r, path, "opening") : 0;
    }
    if (!f && (cuts(u) || u->kind == PH_UNDO_OPENED))
        put_aside(r, u, fd, u->kind == PH_UNDO_BYTES ? 0 : u->value, (uint64_t)st.st_size);
    if (u->kind == PH_UNDO_BYTES && !give_back(r, fd, u))
        rc = ph_undo_fail(r, path, "writing");
    uint64_t length = f ? f->size : u->kind == PH_UNDO_OPENED ? u->value : UINT64_MAX;
    if (rc == 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size > length &&
        ftruncate(fd, (off_t)length) != 0)
        rc = ph_undo_fail(r, path, "cutting");
    if (rc == 0 && fdatasync(fd) != 0)
        rc = ph_undo_fail(r, path, "syncing");
    close(fd);
    return rc;
}

/**
 * All is undone. A life that takes its first epoch before it does anything to its files has no
 * note of this epoch, by which one could tell (mark_undone), so there is one of ours. Without
 * it only going back to this epoch once more is at risk, so a full disk is no reason to end.
 */
static void note_life(struct ph_recovery *r)
{
    char at[PATH_MAX], text[64];
    bool needed = false;
    for (size_t i = 0; i < r->nundo && !needed; i++) {
        const struct ph_undo *u = r->undo[i];
        needed = u->epoch == r->record->epoch && !u->undone && u->kind != PH_UNDO_BYTES &&
                 u->kind != PH_UNDO_LIFE;
    }
    if (!needed)
        return;
    snprintf(at, sizeof at, "%.3900s/%llu-%llu", r->undo_directory,
             (unsigned long long)r->record->epoch, (unsigned long long)r->undo_number);
    snprintf(text, sizeof text, "%c:%llu:0:0:0:0:0:2:/.", PH_UNDO_LIFE,
             (unsigned long long)r->undo_number - 1);
    if (symlink(text, at) == 0)
        ph_undo_sync_directory(r, at);
}

int ph_recovery_undo(struct ph_recovery *r)
{
    int rc = 0;
    for (size_t i = 0; i < r->nundo && rc == 0; i++) {
        const struct ph_undo *u = r->undo[i];
        const struct ph_file_pm *f = open_at_epoch(r, u);
        if (u->forgotten || u->kind == PH_UNDO_KEPT || u->kind == PH_UNDO_LIFE ||
            ph_undo_is_left(r, u) || (f && ph_recovery_of_database(r, f)))
            continue;
        /* A directory that was made anew is another one than the note tells of, and may have
         * another name by now. Notes of older epochs are to learn which one it is. */
        if (u->undone && u->epoch == r->record->epoch)
            continue;
        bool bytes = u->kind == PH_UNDO_BYTES || u->kind == PH_UNDO_OPENED;
        rc = bytes ? undo_bytes(r, u) : ph_recovery_undo_name(r, i);
    }
    if (rc == 0)
        note_life(r);
    ph_undo_sync_directory(r, NULL);
    /* Epochs after this one will get their numbers anew, and must not find what is theirs. */
    if (rc == 0)
        ph_undo_remove(r->undo_directory, r->pool_id, r->record->epoch + 1, UINT64_MAX);
    return rc;
}
