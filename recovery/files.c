/* SPDX-License-Identifier: MIT */
/*
 * files.c - the program's descriptors come back, at their numbers
 *
 * Output is exactly-once: a file that the program was writing to is cut back to the length that
 * it had at the epoch, since what was written afterwards will be written again. stdin, stdout
 * and stderr are those of pyheap-recover; where one is the very file that the program had, it
 * is cut back too.
 */
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct ph_recovery *r, const struct ph_file_pm *f, const char *what)
{
    snprintf(r->detail, sizeof r->detail, "descriptor %d, %s: %s: %s", f->fd,
             ph_record_text(r->record, f->path), what, strerror(errno));
    return PH_EFILES;
}

static const void *data(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    return (const char *)r->record + r->record->data.offset + f->data_offset;
}

/** Flags that make sense when a file is opened again. */
static int reopen_flags(const struct ph_file_pm *f)
{
    return (int)f->open_flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC);
}

static bool write_all(int fd, const char *bytes, uint64_t n)
{
    while (n) {
        ssize_t w = write(fd, bytes, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        bytes += w;
        n -= (uint64_t)w;
    }
    return true;
}

/** Put @p fd at the number of @p f. */
static int place(struct ph_recovery *r, int fd, const struct ph_file_pm *f)
{
    if (fd < 0)
        return fail(r, f, "cannot be opened again");
    if (fd == f->fd)
        return 0;
    int rc = dup2(fd, f->fd) < 0 ? fail(r, f, "dup2") : 0;
    close(fd);
    return rc;
}

static int cut_back(struct ph_recovery *r, const struct ph_file_pm *f, int fd)
{
    struct stat st;
    if (!r->keep_files && (f->flags & PH_FILE_WRITABLE) && fstat(fd, &st) == 0 &&
        (uint64_t)st.st_size > f->size && ftruncate(fd, (off_t)f->size) != 0)
        return fail(r, f, "cannot be cut back");
    if (lseek(fd, (off_t)f->position, SEEK_SET) < 0)
        return fail(r, f, "cannot be positioned");
    return 0;
}

/** A descriptor of pyheap-recover's own, taken over where it is. */
static int inherit(struct ph_recovery *r, const struct ph_file_pm *f)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0) {
        int fd = open("/dev/null", O_RDWR);
        return place(r, fd, f);
    }
    if (!S_ISREG(st.st_mode) || st.st_ino != f->ino || st.st_dev != f->dev)
        return 0;
    if ((f->flags & PH_FILE_WRITABLE) && (uint64_t)st.st_size < f->size)
        return 0; /* the shell has emptied it: what follows is all there is */
    return cut_back(r, f, f->fd);
}

static int open_regular(struct ph_recovery *r, const struct ph_file_pm *f)
{
    int fd;
    if (f->flags & PH_FILE_DELETED) {
        fd = memfd_create("pyheap-deleted-file", 0);
        if (fd < 0 || !write_all(fd, data(r, f), f->data_size))
            return fail(r, f, "cannot be made anew");
        fcntl(fd, F_SETFL, reopen_flags(f) & (O_APPEND | O_NONBLOCK));
    } else {
        fd = open(ph_record_text(r->record, f->path), reopen_flags(f));
    }
    if (fd < 0)
        return fail(r, f, "cannot be opened again");
    int rc = cut_back(r, f, fd);
    if (rc) {
        close(fd);
        return rc;
    }
    return place(r, fd, f);
}

/** A terminal is replaced by the one that recovery runs in, where it has one. */
static int open_device(struct ph_recovery *r, const struct ph_file_pm *f)
{
    if (f->flags & PH_FILE_TTY)
        for (int fd = 0; fd < 3; fd++)
            if (isatty(fd))
                return place(r, dup(fd), f);
    int fd = open(ph_record_text(r->record, f->path), reopen_flags(f) | O_NOCTTY);
    if (fd < 0 && (f->flags & PH_FILE_TTY))
        fd = open("/dev/null", O_RDWR);
    return place(r, fd, f);
}

static const struct ph_file_pm *by_number(const struct ph_recovery *r, int fd)
{
    const struct ph_record_pm *rec = r->record;
    const struct ph_file_pm *f = (const void *)((const char *)rec + rec->files.offset);
    for (uint64_t i = 0; i < rec->files.count; i++)
        if (f[i].fd == fd)
            return &f[i];
    return NULL;
}

/** Both ends at once, when the one with the lower number is reached. */
static int open_pair(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_file_pm *g = by_number(r, f->peer);
    int pair[2];
    if (!g)
        return fail(r, f, "has no other end");
    if (g->fd < f->fd)
        return 0;
    if (f->kind == PH_FILE_PIPE) {
        if (pipe(pair) != 0)
            return fail(r, f, "pipe");
        if ((f->open_flags & O_ACCMODE) != O_RDONLY) {
            int swap = pair[0];
            pair[0] = pair[1];
            pair[1] = swap;
        }
    } else if (socketpair(AF_UNIX, (int)f->socket_type, 0, pair) != 0) {
        return fail(r, f, "socketpair");
    }
    /* Out of the way first: one of the two may sit where the other belongs. */
    int high0 = fcntl(pair[0], F_DUPFD, g->fd + 1), high1 = fcntl(pair[1], F_DUPFD, g->fd + 1);
    close(pair[0]);
    close(pair[1]);
    if (high0 < 0 || high1 < 0)
        return fail(r, f, "dup");
    /* Bytes in flight towards an end are written at the other. */
    if (f->kind == PH_FILE_PIPE)
        fcntl((f->open_flags & O_ACCMODE) == O_RDONLY ? high1 : high0, F_SETPIPE_SZ, 1 << 18);
    if ((f->data_size && !write_all(high1, data(r, f), f->data_size)) ||
        (g->data_size && !write_all(high0, data(r, g), g->data_size)))
        return fail(r, f, "bytes in flight");
    fcntl(high0, F_SETFL, f->open_flags & O_NONBLOCK);
    fcntl(high1, F_SETFL, g->open_flags & O_NONBLOCK);
    int rc = place(r, high0, f);
    return rc ? rc : place(r, high1, g);
}

/** One end of a connection that is closed at the other: reading tells so at once. */
static int open_dead(struct ph_recovery *r, const struct ph_file_pm *f)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return fail(r, f, "socketpair");
    close(pair[1]);
    int rc = place(r, pair[0], f);
    /* Inherited at a number above what ulimit -n allows: then it is not there at all. */
    return rc && errno == EBADF ? 0 : rc;
}

static int open_one(struct ph_recovery *r, const struct ph_file_pm *f)
{
    if (f->same_as >= 0)
        return dup2(f->same_as, f->fd) < 0 ? fail(r, f, "dup2") : 0;
    switch ((enum ph_file_kind)f->kind) {
    case PH_FILE_INHERIT:
        return inherit(r, f);
    case PH_FILE_REGULAR:
        return open_regular(r, f);
    case PH_FILE_DIRECTORY:
        return place(r, open(ph_record_text(r->record, f->path), reopen_flags(f)), f);
    case PH_FILE_CHAR:
        return open_device(r, f);
    case PH_FILE_PIPE:
    case PH_FILE_SOCKPAIR:
        return open_pair(r, f);
    case PH_FILE_EPOLL:
        return place(r, epoll_create1(0), f);
    case PH_FILE_EVENTFD:
        return place(r, eventfd((unsigned)f->position, (int)f->open_flags & O_NONBLOCK), f);
    case PH_FILE_DEAD:
        return open_dead(r, f);
    }
    return fail(r, f, "unknown kind");
}

static void watch_again(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_epoll_pm *e = data(r, f);
    for (uint64_t i = 0; i < f->data_size / sizeof *e; i++) {
        struct epoll_event event = {.events = e[i].events, .data.u64 = e[i].data};
        /* A watched descriptor that is dead now cannot be watched; it reads as closed. */
        epoll_ctl(f->fd, EPOLL_CTL_ADD, e[i].fd, &event);
    }
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void close_all_but(const int *keep, size_t n)
{
    int sorted[16];
    unsigned from = 3;
    if (n > sizeof sorted / sizeof sorted[0])
        n = sizeof sorted / sizeof sorted[0];
    memcpy(sorted, keep, n * sizeof *keep);
    qsort(sorted, n, sizeof *sorted, compare);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned)sorted[i] > from)
            close_range(from, (unsigned)sorted[i] - 1, 0);
        from = (unsigned)sorted[i] + 1;
    }
    close_range(from, ~0u, 0);
}

int ph_recovery_open_files(struct ph_recovery *r, const int *keep, size_t n)
{
    const struct ph_record_pm *rec = r->record;
    const struct ph_file_pm *f = (const void *)((const char *)rec + rec->files.offset);
    close_all_but(keep, n);
    for (uint64_t i = 0; i < rec->files.count; i++) {
        int rc = open_one(r, &f[i]);
        if (rc)
            return rc;
    }
    for (int fd = 0; fd < 3; fd++)
        if (!by_number(r, fd))
            close(fd);
    for (uint64_t i = 0; i < rec->files.count; i++)
        if (f[i].kind == PH_FILE_EPOLL && f[i].same_as < 0)
            watch_again(r, &f[i]);
    return 0;
}
