/* SPDX-License-Identifier: MIT */
/*
 * files_durable.c - the files that the program has written to are made durable
 *
 * They are sent to the keeper, which does that before it commits, so that an epoch never speaks
 * of output that a power cut has taken.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEND_MAX 64 /* descriptors in a message; open meanwhile */

/** What was last made durable, so that unchanged files are not synced again. */
static struct seen {
    uint64_t dev, ino, size, mtime_ns;
} seen[256];

/** Whether the file of @p f has changed since it was last sent; notes that it is sent now. */
static bool needs_sync(const struct ph_file_pm *f)
{
    uint64_t mtime = f->mtime_ns;
    struct seen *s = &seen[(f->ino ^ f->dev) % (sizeof seen / sizeof seen[0])];
    if (s->dev == f->dev && s->ino == f->ino && s->size == f->size && s->mtime_ns == mtime)
        return false;
    /* Time stamps are coarse: a write in the same tick would not show. */
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t age = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - mtime;
    *s = (struct seen){f->dev, f->ino, f->size, age > 50000000u ? mtime : 0};
    return true;
}

/** So many are on their way already that the kernel takes no more (unix(7): at most as many as
 *  RLIMIT_NOFILE), or that the keeper, which reads them late, would be waited for. */
static int sync_here(const int *fd, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fdatasync(fd[i]) != 0 && errno != EINVAL && errno != EROFS) {
            ph_agent_detail("making the program's output files durable", NULL, errno);
            return errno == ENOSPC ? PH_EFULL : PH_EIO;
        }
    return 0;
}

int ph_files_send(uint64_t epoch, const int *fd, size_t n)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * SEND_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {&epoch, sizeof epoch};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = CMSG_SPACE(sizeof(int) * n)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n);
    memcpy(CMSG_DATA(c), fd, sizeof(int) * n);
    ssize_t sent;
    do
        sent = sendmsg(ph_agent.socket_fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == ETOOMANYREFS || errno == EAGAIN))
        return sync_here(fd, n);
    if (sent < 0)
        return PH_EKEEPER;
    ph_agent.fd_messages++;
    return 0;
}

/**
 * What the keeper makes durable: a description of its own, where that can be had. With the
 * program's, a lock (flock) would stay until the epoch is durable, though the program has
 * closed the file long since. One that the program was given is others' anyway.
 */
static int to_send(const struct ph_file_pm *f)
{
    char path[40] = "/proc/self/fd/", number[24];
    if (f->kind != PH_FILE_REGULAR || ph_files_is_touchy(f))
        return f->fd;
    int fd = open(strcat(path, ph_format_u64(number, (uint64_t)f->fd)),
                  O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? f->fd : fd;
}

static int send_and_close(uint64_t epoch, const int *fd, const int *own, size_t n)
{
    int rc = n ? ph_files_send(epoch, fd, n) : 0;
    for (size_t i = 0; i < n; i++)
        if (fd[i] != own[i])
            close(fd[i]);
    return rc;
}

int ph_files_make_durable(uint64_t epoch)
{
    size_t n, pending = 0;
    const struct ph_file_pm *f = ph_files_all(&n);
    int fd[SEND_MAX], own[SEND_MAX];
    for (size_t i = 0; i < n; i++) {
        if (!(f[i].flags & PH_FILE_WRITABLE) || f[i].same_as >= 0 ||
            (f[i].flags & PH_FILE_DELETED) || !needs_sync(&f[i]))
            continue;
        own[pending] = f[i].fd;
        fd[pending++] = to_send(&f[i]);
        if (pending == SEND_MAX) {
            int rc = send_and_close(epoch, fd, own, pending);
            if (rc)
                return rc;
            pending = 0;
        }
    }
    return send_and_close(epoch, fd, own, pending);
}
