/* SPDX-License-Identifier: MIT */
/*
 * undo_names.c - the names of files that the program renames or removes are kept
 *
 * A program that rotates its logs, or removes a file that it still had open at the epoch, does
 * so again when it is recovered, and must find them as they were. It concerns the files that
 * were open at the newest epoch and those with the same name and something like ".1" behind
 * it. A file that is removed, or over whose name another is renamed, is linked into the
 * directory of undo.c, so it is there until no epoch needs it; on another file system than the
 * pool's that is not possible, and a line says so.
 */
#include "undo.h"

#include "allocator/syscall.h"
#include "allocator/undo.h"
#include "files.h"
#include "libc_next.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/** Removed, and kept. The next ones take the places of the oldest. */
static struct {
    uint64_t dev, ino;
} removed[256];
static atomic_uint nremoved;

bool ph_undo_is_removed(uint64_t dev, uint64_t ino)
{
    for (unsigned i = 0; i < sizeof removed / sizeof removed[0]; i++)
        if (removed[i].ino == ino && removed[i].dev == dev && ino)
            return true;
    return false;
}

struct named {
    int fd; /* O_PATH; -1: not there */
    struct stat st;
    char path[PH_UNDO_MAX / 2 - 8];
};

/** @return whether there is a regular file of that name. */
static bool look(struct named *f, int dir, const char *path)
{
    f->fd = (int)ph_syscall(SYS_openat, dir, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return f->fd >= 0 && fstat(f->fd, &f->st) == 0 && S_ISREG(f->st.st_mode) &&
           ph_undo_path_of(f->fd, f->path, sizeof f->path);
}

static void end(const struct named *f)
{
    if (f->fd >= 0)
        ph_syscall(SYS_close, f->fd);
}

/** Of a name that may be nobody's yet. */
static bool absolute(char *buf, size_t size, int dir, const char *path)
{
    char directory[PH_UNDO_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = slash ? (size_t)(slash - path) + 1 : 1;
    if (n >= sizeof directory || !*name)
        return false;
    memcpy(directory, slash ? path : ".", n);
    directory[n] = 0;
    int fd = (int)ph_syscall(SYS_openat, dir, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && ph_undo_path_of(fd, directory, sizeof directory);
    if (fd >= 0)
        ph_syscall(SYS_close, fd);
    ph_join(buf, size, directory, "/", name, NULL);
    return ok && strlen(directory) + 1 + strlen(name) < size;
}

/** @param to "": it is removed. @param anyway whatever it is. @return whether it was. */
static bool keep(const struct named *f, const char *to, bool anyway)
{
    bool certain;
    if (!ph_undo_needs_name(&f->st, f->path, &certain) && !anyway)
        return false;
    char names[PH_UNDO_MAX];
    size_t n = strlen(f->path) + 1, m = strlen(to) + 1;
    struct ph_undo_what what = {.st = &f->st,
                                .fd = -1,
                                .link = *to ? -1 : f->fd,
                                .flags = *to ? PH_UNDO_RENAMED : PH_UNDO_REMOVED};
    memcpy(names, f->path, n);
    memcpy(names + n, to, m);
    long err = ph_undo_write(&what, names, n + m);
    if (err && certain) {
        ph_undo_complain(*to ? "the name of " : "what the program removes, ", f->path, err);
    } else if (!err && !*to && f->st.st_nlink == 1) {
        unsigned i = atomic_fetch_add(&nremoved, 1) % (sizeof removed / sizeof removed[0]);
        removed[i].dev = f->st.st_dev;
        removed[i].ino = f->st.st_ino;
    }
    return !err;
}

bool ph_undo_before_unlink(int dir, const char *path)
{
    struct named f;
    int state, saved = errno;
    if (!path || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    if (look(&f, dir, path))
        keep(&f, "", false);
    end(&f);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return true;
}

bool ph_undo_before_rename(int from_dir, const char *from, int to_dir, const char *to)
{
    struct named f, g;
    char path[sizeof f.path];
    int state, saved = errno;
    if (!from || !to || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    bool is = look(&f, from_dir, from), over = look(&g, to_dir, to);
    bool same = is && over && f.st.st_ino == g.st.st_ino && f.st.st_dev == g.st.st_dev;
    /* Of one over another the name must be free again before that can have it. */
    bool kept = is && over && !same && keep(&g, "", false);
    if (is && !same && absolute(path, sizeof path, to_dir, to))
        keep(&f, path, kept);
    end(&f);
    end(&g);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return true;
}

/* ---- the calls -------------------------------------------------------------------------- */

EXPORT int unlink(const char *path)
{
    bool undo = ph_undo_before_unlink(AT_FDCWD, path);
    int rc = ph_libc_next()->unlink(path);
    ph_undo_after(undo);
    return rc;
}

EXPORT int unlinkat(int dir, const char *path, int flags)
{
    bool undo = flags == 0 && ph_undo_before_unlink(dir, path);
    int rc = ph_libc_next()->unlinkat(dir, path, flags);
    ph_undo_after(undo);
    return rc;
}

EXPORT int remove(const char *path)
{
    bool undo = ph_undo_before_unlink(AT_FDCWD, path);
    int rc = ph_libc_next()->remove(path);
    ph_undo_after(undo);
    return rc;
}

EXPORT int rename(const char *from, const char *to)
{
    bool undo = ph_undo_before_rename(AT_FDCWD, from, AT_FDCWD, to);
    int rc = ph_libc_next()->rename(from, to);
    ph_undo_after(undo);
    return rc;
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    bool undo = ph_undo_before_rename(from_dir, from, to_dir, to);
    int rc = ph_libc_next()->renameat(from_dir, from, to_dir, to);
    ph_undo_after(undo);
    return rc;
}

EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    bool undo = flags == 0 && ph_undo_before_rename(from_dir, from, to_dir, to);
    int rc = ph_libc_next()->renameat2(from_dir, from, to_dir, to, flags);
    ph_undo_after(undo);
    return rc;
}
