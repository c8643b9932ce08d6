/* SPDX-License-Identifier: MIT */
/*
 * locate.c - where the files are by now that the program had open
 *
 * A file is gone on with, and cut back, only if it is the one that the program had:
 *
 *   L1  The very file, by inode and time of birth, under its name.
 *   L2  Else the very file under another name of the same directory: a log that was rotated, or
 *       one over whose name another was renamed. It is gone on with under that name.
 *       If the program itself has renamed it, or a directory above it, or removed it, it is
 *       found wherever that was, and gets its name back (undo_names.c).
 *   L3  Else what has its name, if it is a copy: at least as long, and with the same bytes
 *       before the place where the file ended at the epoch; or, if the program has cut it
 *       since, if what it cut off is a copy, too. So a directory can be copied to another
 *       machine, and a file brought back from a backup.
 *   L4  Else it is a stranger. Recovery refuses, or, if --keep-file says so, the program goes
 *       on with it; it is never cut.
 *
 * Where a file system tells no time of birth, or the end of a file could not be read at the
 * epoch, what cannot be compared is taken to be equal.
 */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ph_located {
    int fd;        /* the program's number */
    bool stranger; /* L4 */
    char name[];   /* L2: the whole path; otherwise "" */
};

static const struct ph_located *located(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    int fd = f->same_as >= 0 ? f->same_as : f->fd;
    for (size_t i = 0; i < r->nlocated; i++)
        if (r->located[i]->fd == fd)
            return r->located[i];
    return NULL;
}

const char *ph_recovery_path(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_located *l = located(r, f);
    return l && l->name[0] ? l->name : ph_record_text(r->record, f->path);
}

bool ph_recovery_is_stranger(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_located *l = located(r, f);
    return l && l->stranger;
}

bool ph_recovery_is_inode(uint64_t ino, uint64_t birth_ns, int dir, const char *path,
                          struct statx *sx)
{
    int how = path[0] ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH;
    if (statx(dir, path, how, STATX_BASIC_STATS | STATX_BTIME, sx) != 0 || sx->stx_ino != ino)
        return false;
    uint64_t now_ns = ph_birth_ns(sx);
    return !birth_ns || !now_ns || birth_ns == now_ns;
}

bool ph_recovery_is_very_file(const struct ph_file_pm *f, int dir, const char *path)
{
    struct statx sx;
    return ph_recovery_is_inode(f->ino, f->birth_ns, dir, path, &sx) && S_ISREG(sx.stx_mode);
}

static int note(struct ph_recovery *r, const struct ph_file_pm *f, bool stranger,
                const char *name, size_t length)
{
    struct ph_located *l = malloc(sizeof *l + length + 1), **more;
    more = realloc(r->located, (r->nlocated + 1) * sizeof(struct ph_located *));
    if (more)
        r->located = more;
    if (!l || !more) {
        free(l);
        return PH_ENOMEM;
    }
    l->fd = f->fd;
    l->stranger = stranger;
    memcpy(l->name, name, length);
    l->name[length] = 0;
    r->located[r->nlocated++] = l;
    return 0;
}

/** L2. @return 1: found. */
static int find_renamed(struct ph_recovery *r, const struct ph_file_pm *f, const char *path)
{
    char name[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) + 1 : 0, rc = 0;
    snprintf(name, sizeof name, "%.*s", length, path);
    DIR *d = slash ? opendir(name) : NULL;
    if (!d)
        return 0;
    for (const struct dirent *e; rc == 0 && (e = readdir(d));) {
        if ((e->d_type != DT_REG && e->d_type != DT_UNKNOWN) ||
            !ph_recovery_is_very_file(f, dirfd(d), e->d_name))
            continue;
        int n = snprintf(name, sizeof name, "%.*s%s", length, path, e->d_name);
        rc = n < (int)sizeof name ? note(r, f, false, name, (size_t)n) : PH_EFILES;
        if (rc == 0)
            rc = 1;
    }
    closedir(d);
    return rc;
}

/** L3 */
static bool is_copy(const struct ph_recovery *r, const struct ph_file_pm *f, int fd)
{
    struct stat st;
    bool copied;
    if (ph_recovery_is_cut(r, f, &copied))
        return copied; /* of what it was little may be left */
    if (fstat(fd, &st) != 0 || (uint64_t)st.st_size < f->size)
        return false;
    if (!f->size) /* its bytes tell nothing */
        return st.st_size == 0 || ph_recovery_undo_gave_back(r, f);
    return !f->detail || ph_tail_sum(fd, f->size) == f->detail;
}

bool ph_recovery_is_copy_at(const struct ph_recovery *r, const struct ph_file_pm *f,
                            const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    bool is = fd >= 0 && is_copy(r, f, fd);
    if (fd >= 0)
        close(fd);
    return is;
}

static int locate(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const char *path = ph_record_text(r->record, f->path);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        fd = open(path, O_PATH | O_CLOEXEC); /* not ours to read */
    bool same = fd >= 0 && ph_recovery_is_very_file(f, fd, "");
    char name[PATH_MAX];
    int rc = same ? 0 : find_renamed(r, f, path);
    if (rc == 0 && !same && ph_recovery_undo_place(r, f, name)) {
        rc = note(r, f, false, name, strlen(name));
        rc = rc ? rc : 1;
    }
    if (rc == 0 && !same && fd >= 0 && !is_copy(r, f, fd))
        rc = note(r, f, true, "", 0);
    if (fd >= 0)
        close(fd);
    return rc > 0 ? 0 : rc;
}

/** A directory, a FIFO or what O_PATH was opened on, that the program has renamed since, or a
 *  directory above it, or removed. */
static int locate_other(struct ph_recovery *r, const struct ph_file_pm *f)
{
    char name[PATH_MAX];
    struct stat st;
    int how = S_ISLNK(f->mode) ? AT_SYMLINK_NOFOLLOW : 0;
    bool same = fstatat(AT_FDCWD, ph_record_text(r->record, f->path), &st, how) == 0 &&
                st.st_ino == f->ino;
    return same || !ph_recovery_undo_place(r, f, name) ? 0
                                                       : note(r, f, false, name, strlen(name));
}

int ph_recovery_locate(struct ph_recovery *r)
{
    static const char proc[] = "/proc/";
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    int rc = 0;
    for (uint64_t i = 0; i < n && rc == 0; i++)
        if (f[i].kind == PH_FILE_REGULAR && f[i].same_as < 0 &&
            !(f[i].flags & PH_FILE_DELETED) && ph_reopen_given(&f[i]) < 0 &&
            strncmp(ph_record_text(r->record, f[i].path), proc, sizeof proc - 1) != 0)
            rc = locate(r, &f[i]);
        else if ((f[i].kind == PH_FILE_DIRECTORY || f[i].kind == PH_FILE_PATH) &&
                 f[i].same_as < 0 && !(f[i].flags & PH_FILE_DELETED))
            rc = locate_other(r, &f[i]);
        else if (f[i].kind == PH_FILE_PIPE && ph_record_text(r->record, f[i].path)[0])
            rc = locate_other(r, &f[i]);
    return rc;
}

const char *ph_recovery_new_name(const struct ph_recovery *r, uint64_t dev, uint64_t ino)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n), *end = f + n;
    for (; f < end; f++) {
        const struct ph_located *l = f->ino == ino && f->dev == dev ? located(r, f) : NULL;
        if (l && l->name[0])
            return l->name;
    }
    return NULL;
}

size_t ph_recovery_located_size(const struct ph_recovery *r)
{
    size_t size = 0;
    for (size_t i = 0; i < r->nlocated; i++)
        size += strlen(r->located[i]->name) + 1;
    return size;
}

void ph_recovery_say_located(const struct ph_recovery *r, const char *command)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (uint64_t i = 0; i < n; i++) {
        const struct ph_located *l = f[i].same_as < 0 ? located(r, &f[i]) : NULL;
        if (l && l->name[0] && !ph_recovery_undo_renames(r, &f[i]))
            fprintf(stderr,
                    "%s: %s has another name by now, and is gone on with under that: %s\n",
                    command, ph_record_text(r->record, f[i].path), l->name);
    }
}

void ph_recovery_locate_free(struct ph_recovery *r)
{
    for (size_t i = 0; i < r->nlocated; i++)
        free(r->located[i]);
    free(r->located);
    r->located = NULL;
    r->nlocated = 0;
}
