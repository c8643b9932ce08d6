/* SPDX-License-Identifier: MIT */
/*
 * undo_names.c - files that the program has renamed or removed since the epoch get their names
 * back
 *
 * It will do the same again. Newest first, and each by the file's inode: what is where it was
 * already stays, so doing it twice is doing it once. What has the old name by then gives way if
 * it was made after the name was free: that is the program's own, and will be made again (the
 * next log of a rotation). Anything older is somebody else's and stays.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** Where the file of @p u was left. */
static const char *left_at(const struct ph_recovery *r, const struct ph_undo *u, char *buf,
                           size_t size)
{
    if (u->head->flags & PH_UNDO_RENAMED)
        return ph_recovery_undo_path(u) + strlen(ph_recovery_undo_path(u)) + 1;
    snprintf(buf, size, "%.3900s/%llu-%llu" PH_UNDO_LINK, r->undo_directory,
             (unsigned long long)u->epoch, (unsigned long long)u->number);
    return buf;
}

static bool takes_name(const struct ph_undo *u)
{
    return (u->head->flags & (PH_UNDO_RENAMED | PH_UNDO_REMOVED)) && !u->forgotten;
}

bool ph_recovery_undo_place(const struct ph_recovery *r, const struct ph_file_pm *f,
                            char buf[PATH_MAX])
{
    for (size_t i = 0; i < r->nundo; i++) {
        const struct ph_undo *u = &r->undo[i];
        if (!takes_name(u) || u->head->ino != f->ino || u->head->dev != f->dev)
            continue;
        const char *at = left_at(r, u, buf, PATH_MAX);
        if (!ph_recovery_is_very_file(f, AT_FDCWD, at))
            continue;
        if (at != buf)
            snprintf(buf, PATH_MAX, "%s", at);
        return true;
    }
    return false;
}

bool ph_recovery_undo_renames(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    bool renames = false;
    for (size_t i = 0; i < r->nundo; i++)
        renames |= takes_name(&r->undo[i]) && r->undo[i].head->ino == f->ino &&
                   r->undo[i].head->dev == f->dev;
    return renames;
}

static bool keeps(const struct ph_recovery *r, const struct ph_undo *u)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    bool keeps = r->keep_files;
    for (uint64_t i = 0; i < n && !keeps; i++)
        keeps = f[i].kind == PH_FILE_REGULAR && f[i].ino == u->head->ino &&
                f[i].dev == u->head->dev && ph_recovery_keeps(r, &f[i]);
    return keeps;
}

static void sync_directory_of(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 0, path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static int give_back(struct ph_recovery *r, const struct ph_undo *u)
{
    char buf[PATH_MAX];
    struct statx there, here;
    const char *name = ph_recovery_undo_path(u), *at = left_at(r, u, buf, sizeof buf);
    const unsigned want = STATX_BASIC_STATS | STATX_BTIME;
    if (statx(AT_FDCWD, at, AT_SYMLINK_NOFOLLOW, want, &there) != 0 ||
        !S_ISREG(there.stx_mode) || there.stx_ino != u->head->ino)
        return 0;
    bool taken = statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, want, &here) == 0;
    if (taken && here.stx_ino == u->head->ino)
        return 0;
    if (taken && (!S_ISREG(here.stx_mode) || ph_birth_ns(&here) < u->written_ns))
        return 0;
    if (rename(at, name) != 0) {
        snprintf(r->detail, sizeof r->detail,
                 "%.3800s: its name, which the program had taken from it, cannot be given back "
                 "(%s); nothing is lost, try again",
                 name, strerror(errno));
        return PH_EFILES;
    }
    sync_directory_of(name);
    return 0;
}

int ph_recovery_undo_names(struct ph_recovery *r)
{
    int rc = 0;
    for (size_t i = 0; i < r->nundo && rc == 0; i++)
        if (takes_name(&r->undo[i]) && !keeps(r, &r->undo[i]))
            rc = give_back(r, &r->undo[i]);
    return rc;
}
