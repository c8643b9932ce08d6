/* SPDX-License-Identifier: MIT */
/*
 * locks.c - the program's file locks: whether they are free, and taking them again
 *
 * Locks of flock and of open file descriptions stay with the description, so they are taken as
 * soon as it is there, before the file is cut back. A process's own locks (POSIX) are lost when
 * it closes any descriptor of the file, which the restorer does when it maps files: it takes
 * those itself, last. Here they are only looked at, so that a refusal comes in time.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

static const struct ph_lock_pm *locks(const struct ph_recovery *r)
{
    return (const void *)((const char *)r->record + r->record->locks.offset);
}

static struct flock range(const struct ph_lock_pm *l)
{
    return (struct flock){.l_type = l->exclusive ? F_WRLCK : F_RDLCK,
                          .l_whence = SEEK_SET,
                          .l_start = (off_t)l->start,
                          .l_len = (off_t)l->length};
}

static int operation(const struct ph_lock_pm *l)
{
    return (l->exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB;
}

/** Whether lock @p l could be had on @p fd. @p holder: the process in the way, if known. */
static bool is_free(int fd, const struct ph_lock_pm *l, pid_t *holder)
{
    *holder = 0;
    if (l->kind == PH_LOCK_FLOCK)
        return flock(fd, operation(l)) == 0 || errno != EWOULDBLOCK;
    struct flock f = range(l);
    /* As somebody else than any process: conflicts with everybody's locks. */
    if (fcntl(fd, F_OFD_GETLK, &f) != 0 || f.l_type == F_UNLCK)
        return true;
    *holder = f.l_pid;
    return false;
}

int ph_recovery_check_locks(struct ph_recovery *r)
{
    const struct ph_lock_pm *l = locks(r);
    for (uint64_t i = 0; i < r->record->locks.count; i++) {
        const struct ph_file_pm *f = ph_reopen_by_number(r, l[i].fd);
        const char *path = ph_recovery_path(r, f);
        if ((f->kind != PH_FILE_REGULAR && f->kind != PH_FILE_DIRECTORY) ||
            (f->flags & PH_FILE_DELETED))
            continue;
        int given = ph_reopen_given(f);
        int fd = given >= 0 ? given
                            : open(path, (f->open_flags & O_ACCMODE) == O_WRONLY
                                             ? O_WRONLY | O_CLOEXEC
                                             : O_RDONLY | O_CLOEXEC);
        pid_t holder = 0;
        bool ok = fd < 0 || is_free(fd, &l[i], &holder); /* a missing file is said elsewhere */
        if (fd >= 0 && fd != given)
            close(fd);
        if (ok)
            continue;
        char who[32] = "another process";
        if (holder > 0)
            snprintf(who, sizeof who, "process %d", (int)holder);
        snprintf(r->detail, sizeof r->detail,
                 "%s: the program had locked it, and %s has it locked now; end that process",
                 path, who);
        return PH_EFILES;
    }
    return 0;
}

int ph_reopen_lock(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_lock_pm *l = locks(r);
    for (uint64_t i = 0; i < r->record->locks.count; i++) {
        struct flock how = range(&l[i]);
        if (l[i].fd != f->fd || l[i].kind == PH_LOCK_POSIX)
            continue;
        if (l[i].kind == PH_LOCK_FLOCK ? flock(f->fd, operation(&l[i])) != 0
                                       : fcntl(f->fd, F_OFD_SETLK, &how) != 0)
            return ph_reopen_fail(r, f, "its lock cannot be taken again");
    }
    return 0;
}
