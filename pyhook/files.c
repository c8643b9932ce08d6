/* SPDX-License-Identifier: MIT */
/*
 * files.c - the program's descriptors, as the epoch finds them
 *
 * What can be reopened or re-created is described; regular files that were written to since the
 * last epoch are sent to the keeper, which makes them durable before it commits, so that an
 * epoch never speaks of output that a power cut has taken. What cannot come back is named on
 * stderr, once.
 */
#include "agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define EMBED_MAX     (UINT64_C(64) << 20) /* bytes of a deleted file that an epoch carries */
#define IN_FLIGHT_MAX 262144               /* bytes carried of a pipe or socketpair */
#define SEND_MAX      250                  /* descriptors in a message; the kernel takes 253 */

/** What was last made durable, so that unchanged files are not synced again. */
static struct seen {
    uint64_t dev, ino, size, mtime_ns;
} seen[256];

/** Descriptors already complained about. In .bss: a recovered program does not say it again. */
static struct {
    uint64_t dev, ino;
} warned[64];
static unsigned nwarned;

int ph_files_hide(int fd)
{
    struct rlimit limit;
    int lowest = 1000;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1024)
        lowest = limit.rlim_cur > 16 ? (int)limit.rlim_cur - 8 : 8;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
    if (high < 0) {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
    }
    close(fd);
    return high;
}

void ph_files_inherit(void)
{
    for (int fd = 0; fd < 3; fd++) {
        struct stat st;
        bool open_ = fstat(fd, &st) == 0;
        ph_agent.std_dev[fd] = open_ ? st.st_dev : 0;
        ph_agent.std_ino[fd] = open_ ? st.st_ino : 0;
    }
}

static struct ph_file_pm *files(size_t *n)
{
    *n = ph_agent.areas.files.used / sizeof(struct ph_file_pm);
    return (struct ph_file_pm *)ph_agent.areas.files.base;
}

static void *add_data(struct ph_file_pm *f, size_t size)
{
    struct ph_area *a = &ph_agent.areas.data;
    if (f->data_size == 0)
        f->data_offset = a->used;
    void *p = ph_area_push(a, size);
    f->data_size += size;
    return p;
}

static void cannot_come_back(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    f->kind = PH_FILE_DEAD;
    for (unsigned i = 0; i < nwarned; i++)
        if (warned[i].dev == st->st_dev && warned[i].ino == st->st_ino)
            return;
    if (nwarned < sizeof warned / sizeof warned[0]) {
        warned[nwarned].dev = st->st_dev;
        warned[nwarned++].ino = st->st_ino;
    }
    char number[24];
    ph_agent_say("descriptor ", ph_format_u64(number, (uint64_t)f->fd), " (", name,
                 ") cannot come back: after a recovery it will be closed at the other end; "
                 "reopen it in a pyheap.on_restore callback",
                 NULL);
}

/** The text after @p key in a file of /proc/self/fdinfo. */
static const char *fdinfo(int fd, struct ph_area *text)
{
    char path[48] = "/proc/self/fdinfo/", number[24];
    strcat(path, ph_format_u64(number, (uint64_t)fd));
    text->used = 0;
    return ph_read_file(path, text) < 0 ? "" : (const char *)text->base;
}

static void capture_epoll(struct ph_file_pm *f)
{
    const char *p = fdinfo(f->fd, &ph_agent.areas.text);
    while ((p = strstr(p, "tfd:"))) {
        struct ph_epoll_pm *e = add_data(f, sizeof *e);
        e->fd = (int32_t)strtol(p + 4, NULL, 10);
        const char *q = strstr(p, "events:");
        e->events = q ? (uint32_t)strtoul(q + 7, NULL, 16) : 0;
        q = strstr(p, "data:");
        e->data = q ? strtoull(q + 5, NULL, 16) : 0;
        p += 4;
    }
}

static void capture_eventfd(struct ph_file_pm *f)
{
    const char *p = strstr(fdinfo(f->fd, &ph_agent.areas.text), "eventfd-count:");
    f->position = p ? strtoull(p + 14, NULL, 16) : 0;
}

/** A file without a name: its content goes into the epoch. */
static bool embed(struct ph_file_pm *f)
{
    if (f->size > EMBED_MAX)
        return false;
    unsigned char *to = add_data(f, f->size);
    if (ph_agent.areas.data.overflow)
        return false;
    f->data_size = f->size;
    for (uint64_t at = 0; at < f->size;) {
        ssize_t n = pread(f->fd, to + at, f->size - at, (off_t)at);
        if (n <= 0)
            return false; /* opened for writing only */
        at += (uint64_t)n;
    }
    f->flags |= PH_FILE_DELETED;
    return true;
}

/** The inode of the other end of an AF_UNIX socket; 0: it has none. */
static uint64_t unix_peer(uint64_t ino)
{
    struct {
        struct nlmsghdr header;
        struct unix_diag_req req;
    } q = {.header = {.nlmsg_len = sizeof q,
                      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                      .nlmsg_flags = NLM_F_REQUEST},
           .req = {.sdiag_family = AF_UNIX,
                   .udiag_states = ~0u,
                   .udiag_ino = (uint32_t)ino,
                   .udiag_show = UDIAG_SHOW_PEER,
                   .udiag_cookie = {~0u, ~0u}}};
    _Alignas(struct nlmsghdr) char buf[1024];
    uint64_t peer = 0;
    int s = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (s < 0)
        return 0;
    if (send(s, &q, sizeof q, 0) == (ssize_t)sizeof q) {
        ssize_t n = recv(s, buf, sizeof buf, 0);
        struct nlmsghdr *h = (struct nlmsghdr *)buf;
        if (n >= (ssize_t)sizeof *h && h->nlmsg_type == SOCK_DIAG_BY_FAMILY) {
            struct unix_diag_msg *m = NLMSG_DATA(h);
            char *at = (char *)(m + 1), *end = buf + n;
            while (at + sizeof(struct nlattr) <= end) {
                struct nlattr *a = (struct nlattr *)at;
                if (a->nla_len < sizeof *a)
                    break;
                if (a->nla_type == UNIX_DIAG_PEER && a->nla_len >= sizeof *a + 4) {
                    uint32_t v;
                    memcpy(&v, at + sizeof *a, sizeof v);
                    peer = v;
                }
                at += (a->nla_len + 3u) & ~3u;
            }
        }
    }
    close(s);
    return peer;
}

static void capture_socket(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    int type = 0;
    socklen_t length = sizeof type;
    getsockopt(f->fd, SOL_SOCKET, SO_TYPE, &type, &length);
    f->socket_type = (uint32_t)type;
    struct sockaddr_storage address;
    length = sizeof address;
    uint64_t peer = 0;
    if (getsockname(f->fd, (struct sockaddr *)&address, &length) == 0 &&
        address.ss_family == AF_UNIX && length <= sizeof address.ss_family)
        peer = unix_peer(st->st_ino);
    if (!peer) {
        cannot_come_back(f, name, st);
        return;
    }
    f->kind = PH_FILE_SOCKPAIR;
    f->position = peer; /* becomes `peer` when all descriptors are known */
    if (type == SOCK_STREAM) {
        unsigned char *to = ph_agent.areas.text.base;
        ssize_t n = recv(f->fd, to, IN_FLIGHT_MAX, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0)
            memcpy(add_data(f, (size_t)n), to, (size_t)n);
        f->data_size = n > 0 ? (uint64_t)n : 0;
    }
}

/** Bytes waiting in a pipe, copied without consuming them: tee(2) into a pipe of our own. */
static void capture_pipe(struct ph_file_pm *f)
{
    f->kind = PH_FILE_PIPE;
    int waiting = 0, copy[2];
    if ((f->open_flags & O_ACCMODE) != O_RDONLY || ioctl(f->fd, FIONREAD, &waiting) != 0 ||
        waiting <= 0 || waiting > IN_FLIGHT_MAX || pipe2(copy, O_CLOEXEC | O_NONBLOCK) != 0)
        return;
    fcntl(copy[1], F_SETPIPE_SZ, IN_FLIGHT_MAX);
    ssize_t n = tee(f->fd, copy[1], (size_t)waiting, SPLICE_F_NONBLOCK);
    if (n > 0) {
        char *to = add_data(f, (size_t)n);
        n = read(copy[0], to, (size_t)n);
        f->data_size = n > 0 ? (uint64_t)n : 0;
    }
    close(copy[0]);
    close(copy[1]);
}

static bool inherited(const struct ph_file_pm *f)
{
    return f->fd < 3 && f->ino == ph_agent.std_ino[f->fd] && f->dev == ph_agent.std_dev[f->fd];
}

static bool same_description(const struct ph_file_pm *a, const struct ph_file_pm *b)
{
    if (a->dev != b->dev || a->ino != b->ino || a->open_flags != b->open_flags)
        return false;
    long pid = syscall(SYS_getpid);
    long differs = syscall(SYS_kcmp, pid, pid, KCMP_FILE, a->fd, b->fd);
    return differs == 0 || (differs < 0 && a->position == b->position);
}

static void classify(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    struct termios termios;
    if (isatty(f->fd) || tcgetattr(f->fd, &termios) == 0)
        f->flags |= PH_FILE_TTY;
    if (inherited(f)) {
        f->kind = PH_FILE_INHERIT;
    } else if (S_ISREG(st->st_mode)) {
        f->kind = PH_FILE_REGULAR;
        if (st->st_nlink == 0 && !embed(f))
            cannot_come_back(f, name, st);
    } else if (S_ISDIR(st->st_mode)) {
        f->kind = PH_FILE_DIRECTORY;
    } else if (S_ISCHR(st->st_mode)) {
        f->kind = PH_FILE_CHAR;
    } else if (S_ISFIFO(st->st_mode) && strncmp(name, "pipe:", 5) == 0) {
        capture_pipe(f);
        f->path = 0;
    } else if (S_ISSOCK(st->st_mode)) {
        capture_socket(f, name, st);
    } else if (strcmp(name, "anon_inode:[eventpoll]") == 0) {
        f->kind = PH_FILE_EPOLL;
        capture_epoll(f);
    } else if (strcmp(name, "anon_inode:[eventfd]") == 0) {
        f->kind = PH_FILE_EVENTFD;
        capture_eventfd(f);
    } else {
        cannot_come_back(f, name, st);
    }
}

static void capture_one(int fd)
{
    struct stat st;
    char path[40] = "/proc/self/fd/", number[24], name[4096];
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) != 0)
        return;
    strcat(path, ph_format_u64(number, (uint64_t)fd));
    ssize_t n = readlink(path, name, sizeof name - 1);
    name[n > 0 ? n : 0] = 0;

    struct ph_file_pm *f = ph_area_push(&ph_agent.areas.files, sizeof *f);
    if (ph_agent.areas.files.overflow)
        return;
    f->fd = fd;
    f->open_flags = (uint32_t)flags;
    f->fd_flags = (uint32_t)fcntl(fd, F_GETFD);
    f->same_as = f->peer = -1;
    f->mode = st.st_mode;
    f->size = (uint64_t)st.st_size;
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->rdev = st.st_rdev;
    off_t position = lseek(fd, 0, SEEK_CUR);
    f->position = position > 0 ? (uint64_t)position : 0;
    f->path = ph_record_string(name, strlen(name));
    if (S_ISREG(st.st_mode) && (flags & O_ACCMODE) != O_RDONLY)
        f->flags |= PH_FILE_WRITABLE;

    size_t count;
    struct ph_file_pm *all = files(&count);
    for (size_t i = 0; i + 1 < count; i++)
        if (all[i].same_as < 0 && same_description(f, &all[i])) {
            f->same_as = all[i].fd;
            f->kind = all[i].kind;
            f->flags |= all[i].flags & (PH_FILE_DELETED | PH_FILE_TTY);
            return;
        }
    classify(f, name, &st);
}

/** Find the other ends of pipes and socketpairs; what has none inside cannot come back. */
static void match_peers(void)
{
    size_t n;
    struct ph_file_pm *f = files(&n);
    for (size_t i = 0; i < n; i++) {
        if (f[i].same_as >= 0 || (f[i].kind != PH_FILE_PIPE && f[i].kind != PH_FILE_SOCKPAIR))
            continue;
        bool pipe_ = f[i].kind == PH_FILE_PIPE;
        for (size_t j = 0; j < n && f[i].peer < 0; j++)
            if (j != i && f[j].kind == f[i].kind && f[j].same_as < 0 &&
                f[j].ino == (pipe_ ? f[i].ino : f[i].position) &&
                (!pipe_ || (f[j].open_flags & O_ACCMODE) != (f[i].open_flags & O_ACCMODE)))
                f[i].peer = f[j].fd;
    }
    for (size_t i = 0; i < n; i++) {
        if (f[i].same_as >= 0 || (f[i].kind != PH_FILE_PIPE && f[i].kind != PH_FILE_SOCKPAIR))
            continue;
        if (f[i].kind == PH_FILE_SOCKPAIR)
            f[i].position = 0;
        if (f[i].peer < 0) {
            struct stat st;
            if (fstat(f[i].fd, &st) == 0)
                cannot_come_back(&f[i], S_ISSOCK(st.st_mode) ? "a socket" : "a pipe", &st);
        }
    }
}

/** Whether the file of @p f has changed since it was last sent; notes that it is sent now. */
static bool needs_sync(const struct ph_file_pm *f, const struct stat *st)
{
    uint64_t mtime = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
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

static int send_descriptors(uint64_t epoch, const int *fd, size_t n)
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
        sent = sendmsg(ph_agent.socket_fd, &m, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return PH_EKEEPER;
    ph_agent.fd_messages++;
    return 0;
}

static int send_written(uint64_t epoch)
{
    size_t n, pending = 0;
    const struct ph_file_pm *f = files(&n);
    int fd[SEND_MAX];
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (!(f[i].flags & PH_FILE_WRITABLE) || f[i].same_as >= 0 ||
            (f[i].flags & PH_FILE_DELETED) || fstat(f[i].fd, &st) != 0 ||
            !needs_sync(&f[i], &st))
            continue;
        fd[pending++] = f[i].fd;
        if (pending == SEND_MAX) {
            int rc = send_descriptors(epoch, fd, pending);
            if (rc)
                return rc;
            pending = 0;
        }
    }
    return pending ? send_descriptors(epoch, fd, pending) : 0;
}

static bool ours(int fd)
{
    return fd == ph_agent.socket_fd || fd == ph_agent.track.uffd ||
           fd == ph_agent.track.pagemap;
}

int ph_files_capture(uint64_t epoch)
{
    struct {
        uint64_t ino, off;
        uint16_t reclen;
        uint8_t type;
        char name[];
    } * d;
    char buf[8192];
    /* All numbers first: capturing opens descriptors of its own. */
    int *list = (int *)ph_agent.areas.regions.base;
    size_t count = 0, max = ph_agent.areas.regions.size / sizeof *list;
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        ph_agent_detail("/proc/self/fd", NULL, errno);
        return PH_EKERNEL;
    }
    long n;
    while ((n = syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0)
        for (long at = 0; at < n; at += d->reclen) {
            d = (void *)(buf + at);
            int fd = (int)strtol(d->name, NULL, 10);
            if (d->name[0] != '.' && fd != dir && !ours(fd) && count < max)
                list[count++] = fd;
        }
    close(dir);
    for (size_t i = 0; i < count; i++)
        capture_one(list[i]);
    match_peers();
    ph_agent.fd_messages = 0;
    return send_written(epoch);
}
