/* SPDX-License-Identifier: MIT */
/*
 * files_socket.c - sockets: pairs within the program come back, connections do not
 *
 * A pair is made of AF_UNIX sockets without names. Who is paired with whom is asked from the
 * kernel (sock_diag(7)). What waits in one is read with MSG_PEEK, message by message, moving on
 * with SO_PEEK_OFF (unix(7), socket(7)).
 */
#include "files.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAITING_MAX  (UINT64_C(8) << 20) /* bytes carried of a socket */
#define MESSAGES_MAX 65536

/* ---- names ------------------------------------------------------------------------------ */

static char *address_text(const struct sockaddr_storage *a, socklen_t length, char *buf,
                          size_t size)
{
    char host[INET6_ADDRSTRLEN] = "", port[24];
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        ph_join(buf, size, host, ":", ph_format_u64(port, ntohs(in->sin_port)), NULL);
    } else if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)a;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        ph_join(buf, size, "[", host, "]:", ph_format_u64(port, ntohs(in6->sin6_port)), NULL);
    } else if (a->ss_family == AF_UNIX && length > sizeof a->ss_family) {
        const struct sockaddr_un *un = (const void *)a;
        char path[sizeof un->sun_path + 1] = "";
        size_t n = length - offsetof(struct sockaddr_un, sun_path);
        memcpy(path, un->sun_path, n < sizeof un->sun_path ? n : sizeof un->sun_path);
        /* A name in the abstract namespace starts with a 0 byte; it is written with @. */
        ph_join(buf, size, path[0] ? "" : "@", path[0] ? path : path + 1, NULL);
    } else {
        buf[0] = 0;
    }
    return buf;
}

char *ph_files_socket_name(int fd, char *buf, size_t size)
{
    struct sockaddr_storage a;
    char local[160] = "", peer[160] = "", number[24];
    int type = 0, listening = 0;
    socklen_t n = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n);
    n = sizeof listening;
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n);
    memset(&a, 0, sizeof a);
    n = sizeof a;
    if (getpeername(fd, (struct sockaddr *)&a, &n) == 0)
        address_text(&a, n, peer, sizeof peer);
    n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        a.ss_family = AF_UNSPEC;
    else
        address_text(&a, n, local, sizeof local);
    const char *kind = type == SOCK_STREAM ? "TCP" : type == SOCK_DGRAM ? "UDP" : "IP";
    if (a.ss_family == AF_UNIX)
        kind = "Unix";
    else if (a.ss_family != AF_INET && a.ss_family != AF_INET6)
        return ph_join(buf, size, "socket of address family ",
                       ph_format_u64(number, a.ss_family), NULL);
    if (listening)
        return ph_join(buf, size, kind, " socket listening on ", local, NULL);
    if (peer[0])
        return ph_join(buf, size, kind, " socket connected to ", peer, NULL);
    if (local[0])
        return ph_join(buf, size, kind, " socket bound to ", local, NULL);
    return ph_join(buf, size, kind, " socket",
                   a.ss_family == AF_UNIX ? " whose other end is in another process" : "",
                   NULL);
}

/* ---- pairs ------------------------------------------------------------------------------ */

#define PEER_UNKNOWN UINT64_MAX /* in `position` of a pair, until the kernel has told */
#define ASK_SINGLY   64         /* the kernel looks for each one among all of the machine's */
#define ANSWERS      32768      /* bytes at once: as many as the kernel ever gives */

/** One answer about a socket: its peer's inode, 0 if that is closed. */
static void read_answer(struct ph_file_pm *f, const char *at, const char *end)
{
    f->position = PEER_UNKNOWN;
    while (at + sizeof(struct nlattr) <= end) {
        struct nlattr a;
        memcpy(&a, at, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > end - at)
            break;
        const char *value = at + sizeof a;
        if (a.nla_type == UNIX_DIAG_PEER && a.nla_len >= sizeof a + 4) {
            uint32_t ino;
            memcpy(&ino, value, sizeof ino);
            f->position = ino;
        } else if (a.nla_type == UNIX_DIAG_SHUTDOWN && a.nla_len > sizeof a) {
            f->shutdown = (unsigned char)*value;
        }
        at += (a.nla_len + 3u) & ~3u;
    }
}

/** @return whether more answers follow. */
static bool read_answers(uint64_t dev, char *buf, ssize_t n)
{
    while (n >= (ssize_t)sizeof(struct nlmsghdr)) {
        const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
        if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY || h->nlmsg_len > n)
            return false;
        const struct unix_diag_msg *m = NLMSG_DATA(h);
        size_t place = PH_FILES_FIRST;
        struct ph_file_pm *f = ph_files_next_of(dev, m->udiag_ino, &place);
        if (f && f->kind == PH_FILE_SOCKPAIR)
            read_answer(f, (const char *)(m + 1), buf + h->nlmsg_len);
        buf += NLMSG_ALIGN(h->nlmsg_len);
        n -= NLMSG_ALIGN(h->nlmsg_len);
    }
    return true;
}

/** @param ino of the socket that is asked about; 0: all sockets. */
static void ask_kernel(int s, uint64_t dev, uint64_t ino)
{
    struct {
        struct nlmsghdr header;
        struct unix_diag_req req;
    } q = {.header = {.nlmsg_len = sizeof q,
                      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                      .nlmsg_flags = ino ? NLM_F_REQUEST : NLM_F_REQUEST | NLM_F_DUMP},
           .req = {.sdiag_family = AF_UNIX,
                   .udiag_states = ~0u,
                   .udiag_ino = (uint32_t)ino,
                   .udiag_show = UDIAG_SHOW_PEER,
                   .udiag_cookie = {~0u, ~0u}}};
    char *buf = (char *)ph_agent.areas.text.base;
    ssize_t n;
    if (!ph_area_reach(&ph_agent.areas.text, ANSWERS) ||
        send(s, &q, sizeof q, 0) != (ssize_t)sizeof q)
        return;
    do
        n = recv(s, buf, ANSWERS, 0);
    while (n > 0 && read_answers(dev, buf, n) && !ino);
}

static bool is_pair(const struct ph_file_pm *f)
{
    return f->kind == PH_FILE_SOCKPAIR && f->same_as < 0;
}

/**
 * All at once, if there are many; then singly those that were not among the answers, since the
 * kernel may skip one when others' sockets come and go meanwhile.
 */
static void find_peers(struct ph_file_pm *f, size_t n)
{
    size_t pairs = 0;
    uint64_t dev = 0;
    for (size_t i = 0; i < n; i++)
        if (is_pair(&f[i])) {
            pairs++;
            dev = f[i].dev;
        }
    int s = pairs ? socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG) : -1;
    if (s < 0)
        return;
    if (pairs > ASK_SINGLY)
        ask_kernel(s, dev, 0);
    for (size_t i = 0; i < n; i++)
        if (is_pair(&f[i]) && f[i].position == PEER_UNKNOWN)
            ask_kernel(s, dev, f[i].ino);
    close(s);
}

/** Descriptors that come with a message are duplicates made for us. @return how many. */
static int close_passed(struct msghdr *m)
{
    int passed = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            close(fd);
            passed++;
        }
    }
    return passed;
}

/** @return NULL, or what is in the way. */
static const char *copy_messages(struct ph_file_pm *f)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * 253) + CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    unsigned char *buf = ph_agent.areas.text.base;
    if (!ph_area_reach(&ph_agent.areas.text, WAITING_MAX))
        return NULL; /* the epoch will be refused */
    for (unsigned i = 0; i < MESSAGES_MAX && f->data_size < WAITING_MAX; i++) {
        struct iovec iov = {buf, WAITING_MAX};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control.buf,
                           .msg_controllen = sizeof control.buf};
        ssize_t n = recvmsg(f->fd, &m, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
            return errno == EAGAIN || errno == ENOTCONN ? NULL : strerrordesc_np(errno);
        if (close_passed(&m))
            return "a socket with descriptors on their way in it";
        if (n == 0 && f->socket_type != SOCK_DGRAM)
            return NULL; /* the end of a stream */
        void *chunk = ph_files_chunk(f, 0, (size_t)n);
        if (!chunk)
            return NULL; /* the epoch will be refused */
        memcpy(chunk, buf, (size_t)n);
    }
    return "a socket with more in it than can be copied";
}

static const char *copy_waiting(struct ph_file_pm *f)
{
    int before = -1, zero = 0;
    socklen_t n = sizeof before;
    getsockopt(f->fd, SOL_SOCKET, SO_PEEK_OFF, &before, &n);
    if (setsockopt(f->fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof zero) != 0)
        return "a socket that cannot be looked into";
    const char *why = copy_messages(f);
    setsockopt(f->fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof before);
    return why;
}

void ph_files_capture_socket(struct ph_file_pm *f)
{
    int type = 0, room = 0;
    socklen_t length = sizeof type;
    char name[256];
    struct sockaddr_storage address;
    getsockopt(f->fd, SOL_SOCKET, SO_TYPE, &type, &length);
    length = sizeof room;
    getsockopt(f->fd, SOL_SOCKET, SO_SNDBUF, &room, &length);
    f->socket_type = (uint32_t)type;
    f->detail = (uint32_t)room;
    length = sizeof address;
    if (getsockname(f->fd, (struct sockaddr *)&address, &length) != 0 ||
        address.ss_family != AF_UNIX || length > sizeof address.ss_family) {
        ph_files_dead(f, ph_files_socket_name(f->fd, name, sizeof name));
        return;
    }
    f->kind = PH_FILE_SOCKPAIR;
    f->position = PEER_UNKNOWN; /* then its inode, then `peer` */
}

static void match_socket(struct ph_file_pm *f)
{
    uint64_t peer = f->position;
    const struct ph_file_pm *g;
    char name[256];
    f->position = 0;
    for (size_t place = PH_FILES_FIRST; (g = ph_files_next_of(f->dev, peer, &place));)
        if (g != f && g->kind == PH_FILE_SOCKPAIR)
            f->peer = g->fd;
    if (f->peer < 0 && !(f->flags & PH_FILE_HUNGUP))
        ph_files_dead(f, ph_files_socket_name(f->fd, name, sizeof name));
}

void ph_files_match_sockets(void)
{
    size_t n;
    char name[256];
    struct ph_file_pm *f = ph_files_all(&n);
    find_peers(f, n);
    for (size_t i = 0; i < n; i++) {
        if (!is_pair(&f[i]))
            continue;
        if (f[i].position == 0)
            f[i].flags |= PH_FILE_HUNGUP;
        const char *why = f[i].position == PEER_UNKNOWN
                              ? ph_files_socket_name(f[i].fd, name, sizeof name)
                              : copy_waiting(&f[i]);
        if (why)
            ph_files_dead(&f[i], why);
    }
    for (size_t i = 0; i < n; i++)
        if (is_pair(&f[i]))
            match_socket(&f[i]);
}
