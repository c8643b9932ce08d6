/* SPDX-License-Identifier: MIT */
/*
 * undo_names.c - what the program renames, removes and makes is noted
 *
 * It does so again when it is recovered, and must find the names as they were. A file that is
 * removed, or over whose name another is renamed, is linked into the directory of
 * allocator/undo.h, so it is there until no epoch needs it; on another file system than the
 * pool's that is not possible. What was made since the newest epoch may go without a trace, but
 * for directories: what is older may have been in them.
 */
#include "undo.h"

#include "allocator/syscall.h"
#include "allocator/undo.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    int fd; /* O_PATH; < 0: not there */
    struct stat st;
    char path[PH_UNDO_PATH];
};

/** @return whether there is something of that name. */
static bool look(struct named *f, int dir, const char *path)
{
    f->fd = (int)ph_syscall(SYS_openat, dir, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return f->fd >= 0 && fstat(f->fd, &f->st) == 0 &&
           ph_undo_absolute(f->path, sizeof f->path, dir, path, NULL);
}

static void end(const struct named *f)
{
    if (f->fd >= 0)
        ph_syscall(SYS_close, f->fd);
}

static void note(enum ph_undo_kind kind, const struct named *f, const char *to)
{
    struct ph_undo_note n = {.kind = (int)kind,
                             .link = f->fd,
                             .dev = f->st.st_dev,
                             .ino = f->st.st_ino,
                             .birth_ns = ph_files_birth(f->fd),
                             .value = f->st.st_mode & 07777,
                             .path = f->path,
                             .to = to};
    long err = ph_undo_note(&n);
    if (err && err != -EXDEV)
        ph_undo_complain("the name of ", f->path, err);
    if (!err && kind == PH_UNDO_REMOVED && f->st.st_nlink == 1) {
        unsigned i = atomic_fetch_add(&nremoved, 1) % (sizeof removed / sizeof removed[0]);
        removed[i].dev = f->st.st_dev;
        removed[i].ino = f->st.st_ino;
    }
}

/** The name is about to go, perhaps to another. */
static void lose(const struct named *f)
{
    if (ph_undo_concerns(&f->st, f->path) &&
        (S_ISDIR(f->st.st_mode) || !ph_undo_is_made(&f->st)))
        note(S_ISDIR(f->st.st_mode) ? PH_UNDO_REMOVED_DIRECTORY : PH_UNDO_REMOVED, f, NULL);
}

bool ph_undo_before_unlink(int dir, const char *path, bool directory)
{
    struct named f;
    int state, saved = errno;
    if (!path || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    if (look(&f, dir, path) && S_ISDIR(f.st.st_mode) == directory)
        lose(&f);
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
    if (is && over && !same)
        lose(&g);
    if (is && !same && ph_undo_absolute(path, sizeof path, to_dir, to, NULL) &&
        !ph_files_is_kept(f.st.st_dev, f.st.st_ino, f.path) && !ph_files_is_kept_name(path) &&
        (ph_undo_concerns(&f.st, f.path) || ph_undo_concerns(&f.st, path)))
        note(PH_UNDO_RENAMED, &f, path);
    end(&f);
    end(&g);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return true;
}

bool ph_undo_before_making(int dir, const char *path, mode_t type)
{
    int state, saved = errno;
    if (!path || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    int there = (int)ph_syscall(SYS_openat, dir, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (there >= 0)
        ph_syscall(SYS_close, there);
    else if (there == -ENOENT)
        ph_undo_makes(dir, path, type);
    if (there != -ENOENT)
        ph_undo_after(true);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return there == -ENOENT;
}

bool ph_undo_before_link(int from_dir, const char *from, int dir, const char *path, int flags)
{
    struct named f, to;
    int state, saved = errno;
    if (!from || !path || !ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    bool itself = (flags & AT_EMPTY_PATH) && !from[0];
    int how = O_PATH | O_CLOEXEC | (flags & AT_SYMLINK_FOLLOW ? 0 : O_NOFOLLOW);
    f.fd = itself ? from_dir : (int)ph_syscall(SYS_openat, from_dir, from, how);
    look(&to, dir, path);
    if (to.fd == -ENOENT && f.fd >= 0 && fstat(f.fd, &f.st) == 0 && !S_ISDIR(f.st.st_mode) &&
        ph_undo_absolute(f.path, sizeof f.path, dir, path, NULL)) {
        f.st.st_nlink++;
        ph_undo_made(&f.st, ph_files_birth(f.fd), f.path);
    }
    end(&to);
    if (!itself)
        end(&f);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    return true;
}

void ph_undo_after_making(bool inside, int dir, const char *path)
{
    struct named f;
    int state, saved = errno;
    if (!inside)
        return;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    if (path && look(&f, dir, path))
        ph_undo_made(&f.st, ph_files_birth(f.fd), f.path);
    if (path)
        end(&f);
    ph_undo_after(inside);
    pthread_setcancelstate(state, NULL);
    errno = saved;
}
