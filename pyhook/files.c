/* SPDX-License-Identifier: MIT */
/*
 * files.c - the program's descriptors, as the epoch finds them
 *
 * What can be reopened or re-created is described; regular files that were written to since the
 * last epoch are sent to the keeper, which makes them durable before it commits, so that an
 * epoch never speaks of output that a power cut has taken. What cannot come back is named on
 * stderr, once; in strict mode it fails the epoch.
 *
 * Here are the list and what has a file behind it. files_special.c has what the kernel makes up
 * (pipes, epoll, timers), files_socket.c sockets, files_inherit.c what was there from the
 * start.
 */
#include "files.h"

#include "children.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define EMBED_MAX (UINT64_C(64) << 20) /* bytes of a deleted file that an epoch carries */
#define SEND_MAX  64                   /* descriptors in a message; open meanwhile */

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/** What was last made durable, so that unchanged files are not synced again. */
static struct seen {
    uint64_t dev, ino, size, mtime_ns;
} seen[256];

/** What has been complained about already, by a hash of its description: a program that opens a
 *  connection to the same place again and again hears of it once. In .bss: a recovered program
 *  does not hear it again. */
static uint64_t warned[64];
static unsigned nwarned;

/** Files that are not to be cut back on recovery. */
static struct {
    uint64_t dev, ino;
} kept[256];
static unsigned nkept;

/** What this epoch found that cannot come back, for strict mode; text in the agent's detail. */
static unsigned ndead;

static uint64_t mtime_ns(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

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

int ph_files_keep(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return PH_EFILES;
    for (unsigned i = 0; i < nkept; i++)
        if (kept[i].dev == st.st_dev && kept[i].ino == st.st_ino)
            return 0;
    if (nkept == sizeof kept / sizeof kept[0])
        return PH_ENOMEM;
    kept[nkept].dev = st.st_dev;
    kept[nkept++].ino = st.st_ino;
    return 0;
}

struct ph_file_pm *ph_files_all(size_t *n)
{
    *n = ph_agent.areas.files.used / sizeof(struct ph_file_pm);
    return (struct ph_file_pm *)ph_agent.areas.files.base;
}

void *ph_files_data(struct ph_file_pm *f, size_t size)
{
    struct ph_area *a = &ph_agent.areas.data;
    if (f->data_size == 0)
        f->data_offset = a->used;
    void *p = ph_area_push(a, size);
    f->data_size += (size + 7) & ~(size_t)7;
    return p;
}

void *ph_files_chunk(struct ph_file_pm *f, uint64_t offset, size_t size)
{
    struct ph_chunk_pm *c = ph_files_data(f, sizeof *c + size);
    c->offset = offset;
    c->size = size;
    return c + 1;
}

const char *ph_files_info(int fd)
{
    char path[48] = "/proc/self/fdinfo/", number[24];
    strcat(path, ph_format_u64(number, (uint64_t)fd));
    ph_agent.areas.text.used = 0;
    return ph_read_file(path, &ph_agent.areas.text) < 0
               ? ""
               : (const char *)ph_agent.areas.text.base;
}

/** In strict mode the epoch fails, and its detail names them all. */
static void note_dead(const char *what)
{
    char line[sizeof ph_agent.detail];
    ph_join(line, sizeof line,
            ndead ? ph_agent.detail : "cannot come back:", ndead ? ", " : " ", what, NULL);
    ph_agent_detail(line, NULL, 0);
    ndead++;
}

static void note_dead_descriptor(const struct ph_file_pm *f, const char *what)
{
    char line[sizeof ph_agent.detail], number[24];
    note_dead(ph_join(line, sizeof line, "descriptor ", ph_format_u64(number, (uint64_t)f->fd),
                      " (", what, ")", NULL));
}

/** Whether to complain about what has this description. The last complaint is about that. */
static bool warn_first_time(const char *what)
{
    const unsigned most = sizeof warned / sizeof warned[0];
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (const char *p = what; *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    for (unsigned i = 0; i < nwarned; i++)
        if (warned[i] == hash)
            return false;
    if (nwarned == most)
        return false;
    warned[nwarned++] = hash;
    if (nwarned == most)
        ph_agent_say("many descriptors cannot come back; no more of them are named", NULL);
    return nwarned < most;
}

void ph_files_cannot(const char *what, const char *advice)
{
    if (PH_CONTROL->strict)
        note_dead(what);
    else if (warn_first_time(what))
        ph_agent_say(what, " cannot come back", advice, NULL);
}

void ph_files_dead(struct ph_file_pm *f, const char *what)
{
    f->kind = PH_FILE_DEAD;
    if (PH_CONTROL->strict) {
        note_dead_descriptor(f, what);
        return;
    }
    if (!warn_first_time(what))
        return;
    char number[24];
    ph_agent_say("descriptor ", ph_format_u64(number, (uint64_t)f->fd), " (", what,
                 ") cannot come back: after a recovery it will be closed at the other end; "
                 "reopen it in a pyheap.on_restore callback",
                 NULL);
}

/* ---- files without a name ------------------------------------------------------------- */

/**
 * The first part of [*start, end) of the file of @p f that is in no shared mapping: *start and
 * the result are its ends. What is mapped is saved with the pages.
 */
static uint64_t unmapped_part(const struct ph_file_pm *f, uint64_t *start, uint64_t end)
{
    const struct ph_vma_pm *all = (const struct ph_vma_pm *)ph_agent.areas.vmas.base;
    size_t n = ph_agent.areas.vmas.used / sizeof *all;
    for (bool again = true; again;) {
        again = false;
        for (const struct ph_vma_pm *v = all; v < all + n; v++) {
            uint64_t to = v->offset + (v->end - v->start);
            if (v->kind != PH_VMA_SHARED_ANON || v->ino != f->ino || v->dev != f->dev ||
                (v->flags & PH_VMA_EMBEDDED) || v->offset >= end || to <= *start)
                continue;
            if (v->offset <= *start) {
                *start = to;
                again = *start < end;
            } else {
                end = v->offset;
            }
        }
    }
    return *start < end ? end : *start;
}

static bool embed_part(struct ph_file_pm *f, int fd, uint64_t start, uint64_t end)
{
    while (start < end) {
        uint64_t to = unmapped_part(f, &start, end);
        if (to <= start)
            return true;
        if (f->data_size + (to - start) > EMBED_MAX)
            return false;
        unsigned char *at = ph_files_chunk(f, start, to - start);
        if (ph_agent.areas.data.overflow)
            return false;
        while (start < to) {
            ssize_t n = pread(fd, at, to - start, (off_t)start);
            if (n <= 0)
                return false;
            at += n;
            start += (uint64_t)n;
        }
    }
    return true;
}

/** Mappings of a file that nobody can write to any more: it is saved, and they are not. */
static void claim_mappings(const struct ph_file_pm *f)
{
    struct ph_vma_pm *v = (struct ph_vma_pm *)ph_agent.areas.vmas.base;
    size_t n = ph_agent.areas.vmas.used / sizeof *v;
    for (size_t i = 0; i < n; i++)
        if (v[i].kind == PH_VMA_SHARED_ANON && v[i].ino == f->ino && v[i].dev == f->dev)
            v[i].flags |= PH_VMA_EMBEDDED;
}

/** A file without a name, or whose name is as volatile as it: its content goes into the epoch,
 * but for its holes. */
static bool embed(struct ph_file_pm *f, const char *name)
{
    char path[40] = "/proc/self/fd/", number[24];
    f->flags |= PH_FILE_DELETED;
    if (strncmp(name, "/memfd:", 7) == 0)
        f->flags |= PH_FILE_MEMFD;
    if (ph_segments_made(name))
        f->flags |= PH_FILE_SEGMENT;
    size_t n;
    for (const struct ph_file_pm *g = ph_files_all(&n); g < f; g++)
        if (g->kind == PH_FILE_REGULAR && g->ino == f->ino && g->dev == f->dev) {
            f->detail = g->detail;
            return true; /* another description of a file that is saved already */
        }
    int seals = fcntl(f->fd, F_GET_SEALS);
    f->detail = seals < 0 ? F_SEAL_SEAL : (uint32_t)seals;
    if (f->detail & F_SEAL_WRITE)
        claim_mappings(f);
    /* A description of our own: the program's has a position, or is for writing only. But
     * closing that would lose the process's locks on the file (fcntl(2)). */
    bool borrow =
        (f->open_flags & O_ACCMODE) == O_RDWR && strstr(ph_files_info(f->fd), "POSIX");
    int fd = borrow ? f->fd
                    : open(strcat(path, ph_format_u64(number, (uint64_t)f->fd)),
                           O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0;
    for (uint64_t at = 0; ok && at < f->size;) {
        off_t from = lseek(fd, (off_t)at, SEEK_DATA);
        off_t to = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);
        if (from < 0 && errno == ENXIO)
            break;
        ok = from >= 0 && to > from && embed_part(f, fd, (uint64_t)from, (uint64_t)to);
        at = (uint64_t)to;
    }
    if (borrow)
        lseek(fd, (off_t)f->position, SEEK_SET);
    else if (fd >= 0)
        close(fd);
    return ok;
}

/* ---- locks ------------------------------------------------------------------------------ */

/** fcntl(F_SETLEASE): the file comes back, the kernel's promise to tell of others does not. */
static void lose_lease(const struct ph_file_pm *f)
{
    char what[512], number[24];
    const char *path = (const char *)ph_agent.areas.strings.base + f->path;
    ph_join(what, sizeof what, "the lease on ", path, NULL);
    if (PH_CONTROL->strict)
        note_dead_descriptor(f, what);
    else if (warn_first_time(what))
        ph_agent_say("descriptor ", ph_format_u64(number, (uint64_t)f->fd), ": ", what,
                     " cannot come back; take it again in a pyheap.on_restore callback", NULL);
}

/** The next word of a line. @return whether there was one. */
static bool word(const char **p, char *buf, size_t size)
{
    *p += strspn(*p, " \t");
    size_t n = strcspn(*p, " \t\n");
    size_t copied = n < size ? n : size - 1;
    memcpy(buf, *p, copied);
    buf[copied] = 0;
    *p += n;
    return n > 0;
}

/**
 * Those that the program holds by this description, from fdinfo (proc_pid_fdinfo(5)):
 * "lock: 1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF": number, kind, mode, type, pid, file,
 * first and last byte.
 */
static void capture_locks(const struct ph_file_pm *f)
{
    for (const char *p = ph_files_info(f->fd); (p = strstr(p, "lock:\t"));) {
        char w[8][32];
        p += strlen("lock:\t");
        int words = 0;
        while (words < 8 && word(&p, w[words], sizeof w[0]))
            words++;
        if (words < 8)
            break;
        int kind = strcmp(w[1], "POSIX") == 0    ? PH_LOCK_POSIX
                   : strcmp(w[1], "OFDLCK") == 0 ? PH_LOCK_OFD
                   : strcmp(w[1], "FLOCK") == 0  ? PH_LOCK_FLOCK
                                                 : 0;
        if (!kind) {
            lose_lease(f);
            continue;
        }
        struct ph_lock_pm *l = ph_area_push(&ph_agent.areas.locks, sizeof *l);
        l->fd = f->fd;
        l->kind = (uint16_t)kind;
        l->exclusive = strcmp(w[3], "WRITE") == 0;
        l->start = strtoull(w[6], NULL, 10);
        if (strcmp(w[7], "EOF") != 0)
            l->length = strtoull(w[7], NULL, 10) - l->start + 1;
    }
}

/* ---- one descriptor -----------------------------------------------------------------------
 */

static bool same_description(const struct ph_file_pm *a, const struct ph_file_pm *b)
{
    if (a->dev != b->dev || a->ino != b->ino || a->open_flags != b->open_flags)
        return false;
    long pid = syscall(SYS_getpid);
    long differs = syscall(SYS_kcmp, pid, pid, KCMP_FILE, a->fd, b->fd);
    return differs == 0 || (differs < 0 && a->position == b->position);
}

static bool is_kept(const struct ph_file_pm *f)
{
    for (unsigned i = 0; i < nkept; i++)
        if (kept[i].dev == f->dev && kept[i].ino == f->ino)
            return true;
    return false;
}

/** Whether opening @p name gives the very file, as it was or will be. */
static bool has_name(const struct ph_file_pm *f, const char *name)
{
    struct stat st;
    return stat(name, &st) == 0 && st.st_ino == f->ino && st.st_dev == f->dev;
}

static void capture_regular(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    f->kind = PH_FILE_REGULAR;
    if (st->st_nlink == 0 || ph_segments_made(name) ? !embed(f, name) : !has_name(f, name))
        ph_files_dead(f, name);
    else
        capture_locks(f);
}

/** Whether a file of /proc/PID shows the address space that was there when it was opened. */
static bool shows_memory(const char *rest, const char *const *names, size_t n)
{
    const char *last = strrchr(rest, '/');
    for (size_t i = 0; last && i < n; i++)
        if (strcmp(last + 1, names[i]) == 0)
            return true;
    return false;
}

/** As text, or as the memory itself. */
static const char *const as_text[] = {"maps",      "smaps",   "smaps_rollup",
                                      "numa_maps", "environ", "auxv"},
                         *const as_memory[] = {"mem", "pagemap", "map_files"};
#define AS_TEXT   as_text, sizeof as_text / sizeof as_text[0]
#define AS_MEMORY as_memory, sizeof as_memory / sizeof as_memory[0]

/** Half of it has been read: what is left of it, as it is now, goes into the epoch. */
static bool embed_text(struct ph_file_pm *f, const char *path)
{
    struct ph_area *text = &ph_agent.areas.text;
    text->used = 0;
    long n = ph_read_file(path, text);
    if (n < 0)
        return false;
    memcpy(ph_files_chunk(f, 0, (size_t)n), text->base, (size_t)n);
    f->size = (uint64_t)n;
    f->flags |= PH_FILE_DELETED;
    f->detail = F_SEAL_SEAL;
    return true;
}

/**
 * A file of /proc/PID goes with its process, and has that number in its name. The program's own
 * are found again as those of the process that recovers it. @return whether it is one of these.
 */
static bool of_process(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    static const char proc[] = "/proc/", task[] = "/task/";
    if (strncmp(name, proc, sizeof proc - 1) != 0 || name[6] < '0' || name[6] > '9')
        return false;
    long pid = syscall(SYS_getpid);
    char *rest, *after, buf[4096];
    bool own = strtol(name + 6, &rest, 10) == pid && !shows_memory(rest, AS_MEMORY);
    const char *as = "/proc/self";
    if (own && strncmp(rest, task, sizeof task - 1) == 0) {
        own = strtol(rest + 6, &after, 10) == pid; /* other threads have other numbers then */
        as = "/proc/thread-self";
        rest = after;
    }
    if (!own) {
        ph_files_dead(f, name);
        return true;
    }
    ph_join(buf, sizeof buf, as, rest, NULL);
    f->path = ph_record_string(buf, strlen(buf));
    f->kind = S_ISDIR(st->st_mode) ? PH_FILE_DIRECTORY : PH_FILE_REGULAR;
    if (f->position && shows_memory(rest, AS_TEXT) && !embed_text(f, buf))
        ph_files_dead(f, name);
    return true;
}

/** What is opened again is as it was: memory devices (null, zero, random), and terminals, which
 * are replaced. Others have a state that only their drivers know. */
static bool has_state(const struct ph_file_pm *f, const struct stat *st)
{
    return major(st->st_rdev) != 1 && !(f->flags & PH_FILE_TTY);
}

static void classify(struct ph_file_pm *f, const char *name, const struct stat *st)
{
    if (ph_files_inherited(f, false))
        f->kind = PH_FILE_INHERIT;
    else if ((S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) && !(f->open_flags & O_PATH) &&
             of_process(f, name, st))
        return;
    else if (f->open_flags & O_PATH) {
        f->kind = PH_FILE_PATH;
        if (!has_name(f, name))
            ph_files_dead(f, name);
    } else if (S_ISREG(st->st_mode))
        capture_regular(f, name, st);
    else if (S_ISDIR(st->st_mode)) {
        f->kind = PH_FILE_DIRECTORY;
        if (!has_name(f, name))
            ph_files_dead(f, name);
    } else if (S_ISCHR(st->st_mode)) {
        f->kind = PH_FILE_CHAR;
        if (has_state(f, st) && strcmp(name, "/dev/tty") != 0)
            ph_files_dead(f, name);
    } else if (S_ISSOCK(st->st_mode))
        ph_files_capture_socket(f);
    else
        ph_files_capture_special(f, name);
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
    f->mtime_ns = mtime_ns(&st);
    off_t position = lseek(fd, 0, SEEK_CUR);
    f->position = position > 0 ? (uint64_t)position : 0;
    f->path = ph_record_string(name, strlen(name));

    if (S_ISREG(st.st_mode) && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH))
        f->flags |= is_kept(f) ? PH_FILE_WRITABLE | PH_FILE_KEPT : PH_FILE_WRITABLE;

    if (S_ISCHR(st.st_mode) && isatty(fd))
        f->flags |= PH_FILE_TTY;
    /* stdout and stderr are often one description, and need not be the next time. */
    if (ph_files_inherited(f, true)) {
        f->kind = PH_FILE_INHERIT;
        return;
    }

    size_t count;
    struct ph_file_pm *all = ph_files_all(&count);
    for (size_t i = 0; i + 1 < count; i++)
        if (all[i].same_as < 0 && same_description(f, &all[i])) {
            f->same_as = all[i].fd;
            f->kind = all[i].kind;
            f->flags |= all[i].flags;
            f->detail = all[i].detail;
            return;
        }
    classify(f, name, &st);
}

/** Whether the file of @p f has changed since it was last sent; notes that it is sent now. */
static bool needs_sync(const struct ph_file_pm *f, const struct stat *st)
{
    uint64_t mtime = mtime_ns(st);
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
        sent = sendmsg(ph_agent.socket_fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == ETOOMANYREFS || errno == EAGAIN))
        return sync_here(fd, n);
    if (sent < 0)
        return PH_EKEEPER;
    ph_agent.fd_messages++;
    return 0;
}

/** Whether closing another descriptor of the file of @p f would lose a lock of the process's,
 * or opening it would break a lease (fcntl(2)). */
static bool is_touchy(const struct ph_file_pm *f)
{
    size_t n = ph_agent.areas.locks.used / sizeof(struct ph_lock_pm), nfiles;
    const struct ph_lock_pm *l = (const struct ph_lock_pm *)ph_agent.areas.locks.base;
    const struct ph_file_pm *all = ph_files_all(&nfiles);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; l[i].kind == PH_LOCK_POSIX && j < nfiles; j++)
            if (all[j].fd == l[i].fd && all[j].ino == f->ino && all[j].dev == f->dev)
                return true;
    int lease = fcntl(f->fd, F_GETLEASE);
    return lease == F_RDLCK || lease == F_WRLCK;
}

/**
 * What the keeper makes durable: a description of its own, where that can be had. With the
 * program's, a lock (flock) would stay until the epoch is durable, though the program has
 * closed the file long since. One that the program was given is others' anyway.
 */
static int to_send(const struct ph_file_pm *f)
{
    char path[40] = "/proc/self/fd/", number[24];
    if (f->kind != PH_FILE_REGULAR || is_touchy(f))
        return f->fd;
    int fd = open(strcat(path, ph_format_u64(number, (uint64_t)f->fd)),
                  O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? f->fd : fd;
}

static int send_and_close(uint64_t epoch, const int *fd, const int *own, size_t n)
{
    int rc = n ? send_descriptors(epoch, fd, n) : 0;
    for (size_t i = 0; i < n; i++)
        if (fd[i] != own[i])
            close(fd[i]);
    return rc;
}

static int send_written(uint64_t epoch)
{
    size_t n, pending = 0;
    const struct ph_file_pm *f = ph_files_all(&n);
    int fd[SEND_MAX], own[SEND_MAX];
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (!(f[i].flags & PH_FILE_WRITABLE) || f[i].same_as >= 0 ||
            (f[i].flags & PH_FILE_DELETED) || fstat(f[i].fd, &st) != 0 ||
            !needs_sync(&f[i], &st))
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
    ndead = 0;
    for (size_t i = 0; i < count; i++)
        capture_one(list[i]);
    ph_files_match_ends();
    ph_children_name();
    if (ndead)
        return PH_EUNSUPPORTED;
    ph_agent.fd_messages = 0;
    return send_written(epoch);
}
