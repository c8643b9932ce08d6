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

struct unix_state {
    bool known, paired;
    uint64_t peer; /* inode; 0 with `paired`: closed */
    uint32_t shutdown;
};

static void read_attributes(struct unix_state *u, const char *at, const char *end)
{
    while (at + sizeof(struct nlattr) <= end) {
        struct nlattr a;
        memcpy(&a, at, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > end - at)
            break;
        const char *value = at + sizeof a;
        if (a.nla_type == UNIX_DIAG_PEER && a.nla_len >= sizeof a + 4) {
            uint32_t ino;
            memcpy(&ino, value, sizeof ino);
            u->peer = ino;
            u->paired = true;
        } else if (a.nla_type == UNIX_DIAG_SHUTDOWN && a.nla_len > sizeof a) {
            u->shutdown = (unsigned char)*value;
        }
        at += (a.nla_len + 3u) & ~3u;
    }
}

static struct unix_state ask_kernel(uint64_t ino)
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
    struct unix_state u = {0};
    int s = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (s < 0)
        return u;
    if (send(s, &q, sizeof q, 0) == (ssize_t)sizeof q) {
        ssize_t n = recv(s, buf, sizeof buf, 0);
        struct nlmsghdr *h = (struct nlmsghdr *)buf;
        if (n >= (ssize_t)sizeof *h && h->nlmsg_type == SOCK_DIAG_BY_FAMILY) {
            struct unix_diag_msg *m = NLMSG_DATA(h);
            u.known = true;
            read_attributes(&u, (char *)(m + 1), buf + n);
        }
    }
    close(s);
    return u;
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
    struct unix_state u = {0};
    if (getsockname(f->fd, (struct sockaddr *)&address, &length) == 0 &&
        address.ss_family == AF_UNIX && length <= sizeof address.ss_family)
        u = ask_kernel(f->ino);
    if (!u.paired) {
        ph_files_dead(f, ph_files_socket_name(f->fd, name, sizeof name));
        return;
    }
    f->kind = PH_FILE_SOCKPAIR;
    f->position = u.peer; /* becomes `peer` when all descriptors are known */
    f->shutdown = u.shutdown;
    if (!u.peer)
        f->flags |= PH_FILE_HUNGUP;
    const char *why = copy_waiting(f);
    if (why)
        ph_files_dead(f, why);
}
