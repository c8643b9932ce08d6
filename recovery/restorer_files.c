/* SPDX-License-Identifier: MIT */
/*
 * restorer_files.c - files are as they were at the epoch, when all memory is right
 *
 * Nothing of the world is changed before here. Directories that the program has removed are
 * made anew by pyheap-recover, so they can be opened only afterwards; watches of inotify come
 * then, too, so that what was undone is none of their events.
 */
#include "allocator/syscall.h"
#include "restorer.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/ioctl.h>

#define F_OFD_SETLK_ 37 /* linux/fcntl.h; here fcntl.h hides it */

static struct ph_plan *plan;
static const struct ph_record_pm *record;

static const char *string(uint32_t reference)
{
    return (const char *)ph_r_table(&record->strings) + reference;
}

/** Output after the epoch will be written again. */
static void cut_files(void)
{
    const struct ph_cut *cut =
        (const struct ph_cut *)((const unsigned char *)plan + plan->cuts_offset);
    for (uint64_t i = 0; i < plan->ncuts; i++) {
        long r = ph_syscall(SYS_ftruncate, cut[i].fd, cut[i].size);
        if (r < 0)
            ph_r_fail(PH_EFILES, "cannot cut back the file of descriptor", cut[i].fd, r);
    }
}

/** pyheap-recover discards later epochs and undoes what was done to files, if there is anything
 *  of these; if it dies, so do we. */
static void wait_for_files(void)
{
    struct {
        int64_t s, ns;
    } slice = {0, 100000000};
    while (atomic_load(&plan->undoing)) {
        ph_syscall(SYS_futex, &plan->undoing, FUTEX_WAIT, 1, &slice);
        if (ph_syscall(SYS_getppid) != plan->parent)
            ph_r_leave(PH_EINTR);
    }
}

static void lock_directory(const struct ph_file_pm *f)
{
    const struct ph_lock_pm *l = ph_r_table(&record->locks), *end = l + record->locks.count;
    for (; l < end; l++) {
        struct flock how = {.l_type = l->exclusive ? F_WRLCK : F_RDLCK,
                            .l_start = (long)l->start,
                            .l_len = (long)l->length};
        long r = l->fd != f->fd || l->kind == PH_LOCK_POSIX ? 0
                 : l->kind == PH_LOCK_FLOCK
                     ? ph_syscall(SYS_flock, f->fd, (l->exclusive ? 2 : 1) | 4 /* LOCK_NB */)
                     : ph_syscall(SYS_fcntl, f->fd, F_OFD_SETLK_, &how);
        if (r < 0)
            ph_r_fail(PH_EFILES, "cannot lock the directory of descriptor", (uint64_t)f->fd, r);
    }
}

/** A place in a directory is the file system's, and mostly holds in another one of the same
 *  names; at the end it always does. See open_directory in files.c. */
static void position(const struct ph_file_pm *f)
{
    char some[4096];
    if (f->kind != PH_FILE_DIRECTORY || !f->position)
        return;
    ph_syscall(SYS_getdents64, f->fd, some, sizeof some);
    ph_syscall(SYS_lseek, f->fd, f->position, 0 /* SEEK_SET */);
}

static void open_directories(void)
{
    const struct ph_file_pm *f = ph_r_table(&record->files), *end = f + record->files.count;
    for (; f < end; f++) {
        if (!(f->flags & PH_FILE_LATE))
            continue;
        long fd = f->same_as >= 0 ? f->same_as
                                  : ph_syscall(SYS_open, string(f->path), f->open_flags, 0);
        long r = fd < 0 ? fd : ph_syscall(SYS_dup2, fd, f->fd);
        if (r < 0)
            ph_r_fail(PH_EFILES, "cannot open again the directory of descriptor",
                      (uint64_t)f->fd, r);
        if (f->same_as >= 0)
            continue;
        if (fd != f->fd)
            ph_syscall(SYS_close, fd);
        lock_directory(f);
        position(f);
    }
    long r = plan->flags & PH_PLAN_ENTER ? ph_syscall(SYS_chdir, string(record->cwd)) : 0;
    if (r < 0)
        ph_r_fail(PH_EFILES, "cannot enter the working directory", 0, r);
}

/**
 * The kernel numbers watches one after the other; a number is reached by making a watch and
 * removing it again as often. What that leaves in the queue is taken out.
 */
static void watch(const struct ph_file_pm *f)
{
    const struct ph_watch_pm *w =
        (const void *)((const char *)ph_r_table(&record->data) + f->data_offset);
    uint64_t n = f->data_size / sizeof *w;
    for (int32_t next = 1;;) {
        uint64_t lowest = n;
        for (uint64_t i = 0; i < n; i++)
            if (w[i].wd >= next && (lowest == n || w[i].wd < w[lowest].wd))
                lowest = i;
        if (lowest == n)
            break;
        long wd;
        do
            wd = ph_syscall(SYS_inotify_add_watch, f->fd, string(w[lowest].path),
                            w[lowest].mask);
        while (wd >= 0 && wd < w[lowest].wd &&
               ph_syscall(SYS_inotify_rm_watch, f->fd, wd) == 0);
        if (wd != w[lowest].wd)
            ph_r_fail(PH_EFILES, "cannot watch again for descriptor", (uint64_t)f->fd, wd);
        next = (int32_t)wd + 1;
    }
    char events[4096];
    int waiting = 0;
    while (ph_syscall(SYS_ioctl, f->fd, FIONREAD, &waiting) == 0 && waiting > 0 &&
           ph_syscall(SYS_read, f->fd, events, sizeof events) > 0)
        ;
}

void ph_r_files(struct ph_plan *the_plan, const struct ph_record_pm *the_record)
{
    plan = the_plan;
    record = the_record;
    ph_r_report(PH_PLAN_FILLED);
    wait_for_files();
    cut_files();
    ph_r_report(PH_PLAN_CUT);
    open_directories();
    const struct ph_file_pm *f = ph_r_table(&record->files), *end = f + record->files.count;
    for (; f < end; f++)
        if (f->kind == PH_FILE_INOTIFY && f->same_as < 0)
            watch(f);
    /* The program may write to the terminal when the line of progress is gone. */
    struct {
        int64_t s, ns;
    } patience = {2, 0};
    if (atomic_load(&plan->shown))
        ph_syscall(SYS_futex, &plan->shown, FUTEX_WAIT, 1, &patience);
}
