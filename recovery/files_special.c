/* SPDX-License-Identifier: MIT */
/*
 * files_special.c - descriptors that the kernel makes up come back with what was in them
 *
 * Bytes and messages in flight are put back by writing them at the other end, with the
 * boundaries that they had. Nothing here may wait: what does not fit is a failure.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NS INT64_C(1000000000)

/* ---- pipes ------------------------------------------------------------------------------ */

/** All descriptions of pipes, those of one beside each other, in the order of their numbers. */
static struct {
    const struct ph_file_pm **f;
    size_t n;
} pipes;

static int compare_pipes(const struct ph_file_pm *a, const struct ph_file_pm *b)
{
    return a->dev != b->dev ? (a->dev > b->dev) - (a->dev < b->dev)
                            : (a->ino > b->ino) - (a->ino < b->ino);
}

static int compare(const void *x, const void *y)
{
    const struct ph_file_pm *a = *(const struct ph_file_pm *const *)x;
    const struct ph_file_pm *b = *(const struct ph_file_pm *const *)y;
    int order = compare_pipes(a, b);
    return order ? order : (a->fd > b->fd) - (a->fd < b->fd);
}

static bool collect_pipes(const struct ph_recovery *r)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    if (pipes.f)
        return true;
    pipes.f = calloc(n, sizeof(struct ph_file_pm *));
    for (uint64_t i = 0; i < n && pipes.f; i++)
        if (f[i].kind == PH_FILE_PIPE && f[i].same_as < 0)
            pipes.f[pipes.n++] = &f[i];
    if (pipes.f)
        qsort(pipes.f, pipes.n, sizeof(struct ph_file_pm *), compare);
    return pipes.f;
}

/** The descriptions of the pipe of @p f, if that is the first of them. @return how many. */
static size_t pipe_of(const struct ph_file_pm *f, const struct ph_file_pm *const **all)
{
    const struct ph_file_pm **at =
        bsearch(&f, pipes.f, pipes.n, sizeof(struct ph_file_pm *), compare);
    size_t n = 1, left = (size_t)(pipes.f + pipes.n - at);
    if (at > pipes.f && compare_pipes(at[-1], f) == 0)
        return 0;
    while (n < left && compare_pipes(at[n], f) == 0)
        n++;
    *all = at;
    return n;
}

/** A description of its own of the pipe behind @p end, with the access mode of @p f. */
static int open_end(struct ph_recovery *r, const struct ph_file_pm *f, int end)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", end);
    int fd = open(path, (int)(f->open_flags & O_ACCMODE) | O_NONBLOCK);
    int rc = ph_reopen_place(r, fd, f);
    if (rc == 0 && fcntl(f->fd, F_SETFL, f->open_flags & (O_NONBLOCK | O_DIRECT | O_ASYNC)) < 0)
        rc = ph_reopen_fail(r, f, "flags");
    return rc;
}

static int refill(struct ph_recovery *r, const struct ph_file_pm *f, int end)
{
    for (const struct ph_chunk_pm *c = NULL; (c = ph_reopen_chunk(r, f, c));)
        for (uint64_t at = 0; at < c->size;) {
            ssize_t n = write(end, (const char *)(c + 1) + at, c->size - at);
            if (n <= 0)
                return ph_reopen_fail(r, f, "bytes in flight");
            at += (uint64_t)n;
        }
    return 0;
}

/**
 * The two ends of a new pipe; or a FIFO twice.
 * @param written false: its readers still wait for the first writer, so there must be none.
 */
static int make_ends(const char *fifo, bool packets, bool written, int ends[2])
{
    if (!fifo[0])
        return pipe2(ends, O_NONBLOCK | (packets ? O_DIRECT : 0));
    ends[0] = open(fifo, written ? O_RDWR | O_NONBLOCK : O_PATH);
    ends[1] = ends[0] < 0 ? -1 : dup(ends[0]);
    return ends[1] < 0 ? -1 : 0;
}

/** Others who have a FIFO open have kept what is in it. */
static bool is_filled(int end)
{
    int waiting = 0;
    return ioctl(end, FIONREAD, &waiting) == 0 && waiting > 0;
}

/** All descriptions of a pipe, when the one with the lowest number is reached. */
static int make_pipe(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_file_pm *const *all;
    if (!collect_pipes(r))
        return PH_ENOMEM;
    size_t n = pipe_of(f, &all);
    if (!n)
        return 0;
    int ends[2], rc = 0;
    bool packets = false, written = false;
    for (size_t i = 0; i < n; i++) {
        packets |= (all[i]->open_flags & O_DIRECT) != 0;
        written |=
            (all[i]->open_flags & O_ACCMODE) != O_RDONLY || (all[i]->flags & PH_FILE_HUNGUP);
    }
    if (make_ends(ph_recovery_path(r, f), packets, written, ends) != 0)
        return ph_reopen_fail(r, f, "pipe");
    ends[0] = ph_reopen_aside(r, ends[0]);
    ends[1] = ph_reopen_aside(r, ends[1]);
    if (ends[0] < 0 || ends[1] < 0)
        rc = ph_reopen_fail(r, f, "dup");
    else
        fcntl(ends[1], F_SETPIPE_SZ, (int)f->detail);
    bool filled = is_filled(ends[0]);
    for (size_t i = 0; i < n && rc == 0 && !filled; i++)
        rc = refill(r, all[i], ends[1]);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = open_end(r, all[i], ends[0]);
    close(ends[0]);
    close(ends[1]);
    return rc;
}

/* ---- sockets ---------------------------------------------------------------------------- */

static int send_all(struct ph_recovery *r, const struct ph_file_pm *f, int end)
{
    for (const struct ph_chunk_pm *c = NULL; (c = ph_reopen_chunk(r, f, c));)
        for (uint64_t at = 0; at < c->size || c->size == 0;) {
            ssize_t n = send(end, (const char *)(c + 1) + at, c->size - at,
                             MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0)
                return ph_reopen_fail(r, f, "messages in flight");
            at += (uint64_t)n;
            if (c->size == 0)
                break;
        }
    return 0;
}

/** The kernel doubles what it is told (socket(7)). */
static void set_send_buffer(int fd, uint32_t size)
{
    int half = (int)(size / 2);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
}

static void shut_down(int fd, uint32_t how)
{
    if (how & 3)
        shutdown(fd, (how & 3) == 3 ? SHUT_RDWR : how & 1 ? SHUT_RD : SHUT_WR);
}

/** Both ends at once, when the one with the lower number is reached; or the only one. */
static int make_socketpair(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_file_pm *g = ph_reopen_by_number(r, f->peer);
    int pair[2];
    if (!g && !(f->flags & PH_FILE_HUNGUP))
        return ph_reopen_fail(r, f, "has no other end");
    if (g && g->fd < f->fd)
        return 0;
    if (socketpair(AF_UNIX, (int)f->socket_type, 0, pair) != 0)
        return ph_reopen_fail(r, f, "socketpair");
    pair[0] = ph_reopen_aside(r, pair[0]);
    pair[1] = ph_reopen_aside(r, pair[1]);
    if (pair[0] < 0 || pair[1] < 0)
        return ph_reopen_fail(r, f, "dup");
    set_send_buffer(pair[1], g ? g->detail : f->detail);
    set_send_buffer(pair[0], f->detail);
    int rc = send_all(r, f, pair[1]);
    if (rc == 0 && g)
        rc = send_all(r, g, pair[0]);
    if (rc)
        return rc;
    fcntl(pair[0], F_SETFL, f->open_flags & (O_NONBLOCK | O_ASYNC));
    if (!g) {
        close(pair[1]);
        return ph_reopen_place(r, pair[0], f);
    }
    shut_down(pair[0], f->shutdown);
    shut_down(pair[1], g->shutdown);
    fcntl(pair[1], F_SETFL, g->open_flags & (O_NONBLOCK | O_ASYNC));
    rc = ph_reopen_place(r, pair[0], f);
    return rc ? rc : ph_reopen_place(r, pair[1], g);
}

/* ---- events ----------------------------------------------------------------------------- */

static int make_eventfd(struct ph_recovery *r, const struct ph_file_pm *f)
{
    int fd = eventfd(0, EFD_NONBLOCK | (f->flags & PH_FILE_SEMAPHORE ? EFD_SEMAPHORE : 0));
    if (fd >= 0 && f->position &&
        write(fd, &f->position, sizeof f->position) != (ssize_t)sizeof f->position)
        return ph_reopen_fail(r, f, "the counter");
    fcntl(fd, F_SETFL, f->open_flags & O_NONBLOCK);
    return ph_reopen_place(r, fd, f);
}

static int make_timerfd(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_timerfd_pm *t = ph_reopen_data(r, f);
    /* The restorer sets it, when no time passes any more before the program goes on. */
    return ph_reopen_place(r, timerfd_create(t->clock, (int)f->open_flags & O_NONBLOCK), f);
}

static int make_signalfd(struct ph_recovery *r, const struct ph_file_pm *f)
{
    uint64_t mask = f->position;
    long fd = syscall(SYS_signalfd4, -1, &mask, sizeof mask, f->open_flags & O_NONBLOCK);
    return ph_reopen_place(r, (int)fd, f);
}

int ph_reopen_watch_again(struct ph_recovery *r, const struct ph_file_pm *f)
{
    const struct ph_epoll_pm *e = ph_reopen_data(r, f);
    for (uint64_t i = 0; i < f->data_size / sizeof *e; i++) {
        struct epoll_event event = {.events = e[i].events, .data.u64 = e[i].data};
        /* A number that the program has closed may still have been watched, through another
         * descriptor of the same: nobody can ask for that again, so it is left out. */
        if (epoll_ctl(f->fd, EPOLL_CTL_ADD, e[i].fd, &event) != 0 && errno == ENOSPC)
            return ph_reopen_fail(r, f, "epoll");
    }
    return 0;
}

int ph_reopen_special(struct ph_recovery *r, const struct ph_file_pm *f)
{
    switch ((enum ph_file_kind)f->kind) {
    case PH_FILE_PIPE:
        return make_pipe(r, f);
    case PH_FILE_SOCKPAIR:
        return make_socketpair(r, f);
    case PH_FILE_EPOLL:
        return ph_reopen_place(r, epoll_create1(0), f);
    case PH_FILE_EVENTFD:
        return make_eventfd(r, f);
    case PH_FILE_TIMERFD:
        return make_timerfd(r, f);
    case PH_FILE_SIGNALFD:
        return make_signalfd(r, f);
    case PH_FILE_INOTIFY:
        /* Its watches come when files are as they were: restorer_files.c. */
        return ph_reopen_place(r, inotify_init1((int)f->open_flags & O_NONBLOCK), f);
    default:
        errno = EINVAL;
        return ph_reopen_fail(r, f, "unknown kind");
    }
}
