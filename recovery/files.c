/* SPDX-License-Identifier: MIT */
/*
 * files.c - the program's descriptors come back, at their numbers
 *
 * Output is exactly-once: a file that the program was writing to is cut back to the length that
 * it had at the epoch, since what was written afterwards will be written again. stdin, stdout
 * and stderr, and others that the program was given, are those of pyheap-recover; where one is
 * the very file that the program had, it is cut back too. A file that pyheap-recover has open
 * under the number that the program had it under is shared in the same way: so a lock that a
 * script holds while it runs either command (flock(1)) is the program's, and not in its way.
 *
 * Descriptors are made in the order of their numbers, and a number is free until its turn:
 * what is open meanwhile for our own needs must be at a number that the program does not use
 * (ph_reopen_aside).
 */
#include "files.h"
#include "plan.h"

#include "pyhook/proc_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define GIVEN_MAX 64

/** What pyheap-recover was given, and where it is kept while the program's take their places.
 */
static struct {
    int fd, aside;
} given[GIVEN_MAX];
static size_t ngiven;

/* ---- helpers ---------------------------------------------------------------------------- */

int ph_reopen_fail(struct ph_recovery *r, const struct ph_file_pm *f, const char *what)
{
    int err = errno;
    snprintf(r->detail, sizeof r->detail, "descriptor %d, %s: %s: %s", f->fd,
             ph_record_text(r->record, f->path), what, strerror(err));
    return ph_error_of(err) == PH_EMFILE ? PH_EMFILE : PH_EFILES;
}

const struct ph_file_pm *ph_reopen_all(const struct ph_recovery *r, uint64_t *n)
{
    *n = r->record->files.count;
    return (const void *)((const char *)r->record + r->record->files.offset);
}

const struct ph_file_pm *ph_reopen_by_number(const struct ph_recovery *r, int fd)
{
    uint64_t n, from = 0;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (uint64_t to = n; from < to;) {
        uint64_t middle = from + (to - from) / 2;
        if (f[middle].fd < fd)
            from = middle + 1;
        else
            to = middle;
    }
    return from < n && f[from].fd == fd ? &f[from] : NULL;
}

const void *ph_reopen_data(const struct ph_recovery *r, const struct ph_file_pm *f)
{
    return (const char *)r->record + r->record->data.offset + f->data_offset;
}

const struct ph_chunk_pm *ph_reopen_chunk(const struct ph_recovery *r,
                                          const struct ph_file_pm *f,
                                          const struct ph_chunk_pm *last)
{
    const char *start = ph_reopen_data(r, f), *next = start;
    if (last)
        next = (const char *)(last + 1) + ((last->size + 7) & ~UINT64_C(7));
    return next < start + f->data_size ? (const void *)next : NULL;
}

int ph_reopen_flags(const struct ph_file_pm *f)
{
    /* O_TMPFILE is told by fcntl, and would make another one. */
    int flags = (int)f->open_flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC |
                                       (O_TMPFILE & ~O_DIRECTORY));
    return f->kind == PH_FILE_REGULAR ? flags & ~O_DIRECTORY : flags;
}

int ph_reopen_aside(const struct ph_recovery *r, int fd)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    int highest = n ? f[n - 1].fd : 0;
    /* Above all of the program's; where the limit does not allow that, between them. */
    for (int from = highest + 1; fd >= 0 && ph_reopen_by_number(r, fd); from = fd + 1) {
        int next = fcntl(fd, F_DUPFD, from);
        if (next < 0 && from > highest)
            next = fcntl(fd, F_DUPFD, fd + 1);
        close(fd);
        fd = next;
    }
    return fd;
}

/** No descriptor can be made at this number, though the program's was: it had been made before
 *  a limit was lowered. What pyheap-recover was given at such a number stays there. */
static bool beyond_limit(int fd)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd >= limit.rlim_cur;
}

static int copy_to_its_number(struct ph_recovery *r, int fd, const struct ph_file_pm *f)
{
    if (fd == f->fd || dup2(fd, f->fd) >= 0)
        return 0;
    if (beyond_limit(f->fd))
        errno = EMFILE;
    return ph_reopen_fail(r, f, "its number");
}

int ph_reopen_place(struct ph_recovery *r, int fd, const struct ph_file_pm *f)
{
    if (fd < 0)
        return ph_reopen_fail(r, f, "cannot be opened again");
    int rc = copy_to_its_number(r, fd, f);
    if (fd != f->fd)
        close(fd);
    return rc;
}

/* ---- files ------------------------------------------------------------------------------ */

static int cut_back(struct ph_recovery *r, const struct ph_file_pm *f, int fd)
{
    struct stat st;
    bool cut = (f->flags & PH_FILE_WRITABLE) && !ph_recovery_keeps(r, f) &&
               !ph_recovery_of_database(r, f);
    /* Not yet: the epoch may still turn out to be damaged. */
    if (cut && fstat(fd, &st) == 0 && (uint64_t)st.st_size > f->size)
        r->cut[r->ncut++] = (struct ph_cut){(uint64_t)f->fd, f->size};
    /* Of another file, the end is what the end of the program's was. */
    bool at_end = ph_recovery_is_stranger(r, f) && f->position >= f->size;
    if (lseek(fd, at_end ? 0 : (off_t)f->position, at_end ? SEEK_END : SEEK_SET) < 0)
        return ph_reopen_fail(r, f, "cannot be positioned");
    return 0;
}

int ph_reopen_given(const struct ph_file_pm *f)
{
    struct stat st;
    const int mode = O_ACCMODE | O_APPEND | O_PATH;
    if (f->kind != PH_FILE_REGULAR || (f->flags & PH_FILE_DELETED) || f->same_as >= 0)
        return -1;
    for (size_t i = 0; i < ngiven; i++) {
        int fd = given[i].aside >= 0 ? given[i].aside : given[i].fd;
        if (given[i].fd == f->fd && fstat(fd, &st) == 0 && st.st_dev == f->dev &&
            ph_recovery_is_very_file(f, fd, "") &&
            !((fcntl(fd, F_GETFL) ^ (int)f->open_flags) & mode))
            return fd;
    }
    return -1;
}

/** Whether descriptor @p fd is open to a copy of an inherited file, as on another machine. */
static bool is_copy_of_inherited(const struct ph_recovery *r, const struct ph_file_pm *f,
                                 int fd, const struct stat *st)
{
    char self[32], name[PATH_MAX];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(self, name, sizeof name - 1);
    name[n > 0 ? n : 0] = 0;
    if (!S_ISREG(st->st_mode) || !f->size || !f->shutdown || (uint64_t)st->st_size < f->size ||
        strcmp(name, ph_record_text(r->record, f->path)) != 0)
        return false;
    int in = open(self, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    bool same = in >= 0 && ph_tail_sum(in, f->size) == f->shutdown;
    if (in >= 0)
        close(in);
    return same;
}

/** What pyheap-recover was given under the same number takes its place. */
static int inherit(struct ph_recovery *r, const struct ph_file_pm *f)
{
    struct stat st;
    int own = -1;
    for (size_t i = 0; i < ngiven; i++)
        if (given[i].fd == (int)f->detail)
            own = given[i].aside;
    if (own < 0)
        return f->detail < 3 ? ph_reopen_place(r, open("/dev/null", O_RDWR), f)
                             : ph_reopen_dead(r, f);
    int rc = copy_to_its_number(r, own, f);
    if (rc)
        return rc;
    if (fstat(f->fd, &st) != 0)
        return 0;
    bool same = st.st_dev == f->dev && ph_recovery_is_very_file(f, f->fd, "");
    if (!same && !is_copy_of_inherited(r, f, f->fd, &st))
        return 0;
    if ((f->flags & PH_FILE_WRITABLE) && (uint64_t)st.st_size < f->size)
        return 0; /* the shell has emptied it: what follows is all there is */
    return cut_back(r, f, f->fd);
}

/** The name that the program gave a memfd: "/memfd:name (deleted)" is the kernel's text. */
static void memfd_name(const char *text, char *buf, size_t size)
{
    static const char before[] = "/memfd:", behind[] = " (deleted)";
    const char *name = text + strlen(before), *end = strrchr(text, ' ');
    size_t n = strncmp(text, before, strlen(before)) != 0 ? 0 : strlen(name);
    if (n && end && strcmp(end, behind) == 0 && end >= name)
        n = (size_t)(end - name);
    snprintf(buf, size, "%.*s", (int)n, n ? name : "");
}

/**
 * Shared memory that the program had made. Whoever is to remove it at the end of the program
 * (Python's resource tracker, a child) may be about to, and must not find the new one.
 */
static int make_segment(const char *path)
{
    struct timespec nap = {0, 5000000};
    for (int i = 0; i < 100 && access(path, F_OK) == 0; i++)
        nanosleep(&nap, NULL);
    unlink(path);
    return open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
}

/** A file without a name becomes a memfd; where it is mapped, the restorer fills it. */
static int make_memfd(struct ph_recovery *r, const struct ph_file_pm *f)
{
    char name[256] = "pyheap-deleted-file";
    if (f->flags & PH_FILE_MEMFD)
        memfd_name(ph_record_text(r->record, f->path), name, sizeof name);
    int fd = f->flags & PH_FILE_SEGMENT
                 ? make_segment(ph_record_text(r->record, f->path))
                 : memfd_create(name, f->detail & F_SEAL_SEAL ? 0 : MFD_ALLOW_SEALING);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)f->size) == 0;
    for (const struct ph_chunk_pm *c = NULL; ok && (c = ph_reopen_chunk(r, f, c));) {
        const char *from = (const char *)(c + 1);
        for (uint64_t at = 0; ok && at < c->size;) {
            ssize_t n = pwrite(fd, from + at, c->size - at, (off_t)(c->offset + at));
            ok = n > 0;
            at += ok ? (uint64_t)n : 0;
        }
    }
    if (ok && (f->detail & F_SEAL_WRITE))
        fcntl(fd, F_ADD_SEALS, f->detail);
    if (ok && (f->mode & 0600) == 0600) /* else the restorer could not map it */
        fchmod(fd, f->mode & 07777);
    if (!ok && fd >= 0)
        close(fd);
    return ok ? fd : -1;
}

/** A file like the pool's copy of one. */
static int make_like(struct ph_recovery *r, const struct ph_stored *copy)
{
    static unsigned char page[PH_PAGE];
    uint64_t size = ph_stored_size(copy), n, place;
    int fd = memfd_create("pyheap-copy", 0);
    bool ok = fd >= 0;
    for (uint64_t at = 0; ok && at < size; at += PH_PAGE) {
        place = ph_stored_place(copy, at, &n);
        ok = place && pread(r->pool_fd, page, PH_PAGE, (off_t)place) == PH_PAGE &&
             pwrite(fd, page, PH_PAGE, (off_t)at) == PH_PAGE;
    }
    ok = ok && ftruncate(fd, (off_t)size) == 0;
    if (!ok && fd >= 0)
        close(fd);
    return ok ? fd : -1;
}

/** The descriptor by which the same nameless file is there already; -1: it is not. */
static int made_before(struct ph_recovery *r, const struct ph_file_pm *f)
{
    uint64_t n;
    for (const struct ph_file_pm *g = ph_reopen_all(r, &n); g < f; g++)
        if (g->kind == PH_FILE_REGULAR && (g->flags & PH_FILE_DELETED) && g->ino == f->ino &&
            g->dev == f->dev)
            return g->fd;
    return -1;
}

static int make_anew(struct ph_recovery *r, const struct ph_file_pm *f)
{
    char path[48];
    const struct ph_stored *copy = ph_recovery_copy_of(r, f);
    int before = copy ? -1 : made_before(r, f);
    int memfd = copy ? make_like(r, copy) : before < 0 ? make_memfd(r, f) : before;
    if (memfd < 0)
        return -1;
    /* A description with the program's access mode: the first one can read and write. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", memfd);
    int fd = open(path, ph_reopen_flags(f) & ~(O_DIRECT | O_NOFOLLOW));
    if (before < 0)
        close(memfd);
    return fd;
}

static int open_regular(struct ph_recovery *r, const struct ph_file_pm *f)
{
    int given_fd = ph_reopen_given(f);
    bool anew = (f->flags & PH_FILE_DELETED) || ph_recovery_copy_of(r, f);
    int fd = anew                ? make_anew(r, f)
             : given_fd == f->fd ? given_fd
             : given_fd >= 0     ? dup(given_fd)
                                 : open(ph_recovery_path(r, f), ph_reopen_flags(f));
    if (fd < 0)
        return ph_reopen_fail(r, f, "cannot be opened again");
    /* The locks first: what another process holds by now must not be cut. */
    int rc = ph_reopen_place(r, fd, f);
    if (rc == 0)
        rc = ph_reopen_lock(r, f);
    return rc || (f->open_flags & O_PATH) ? rc : cut_back(r, f, f->fd);
}

/** A directory that is removed again. */
static int open_removed(int flags)
{
    static const char *const where[] = {"/tmp", "/dev/shm", "/var/tmp", "."};
    for (size_t i = 0; i < sizeof where / sizeof where[0]; i++) {
        char path[40];
        snprintf(path, sizeof path, "%s/pyheap-removed-XXXXXX", where[i]);
        if (!mkdtemp(path))
            continue;
        int fd = open(path, flags);
        rmdir(path);
        return fd;
    }
    return -1;
}

static bool is_removed(const char *cwd)
{
    static const char behind[] = " (deleted)";
    size_t n = strlen(cwd), more = strlen(behind);
    return n > more && strcmp(cwd + n - more, behind) == 0 && access(cwd, F_OK) != 0;
}

int ph_recovery_check_directory(struct ph_recovery *r)
{
    const char *cwd = ph_record_text(r->record, r->record->cwd);
    char place[PATH_MAX];
    struct stat st;
    if (is_removed(cwd) || ph_recovery_enters_late(r) ||
        ph_recovery_undo_left_at(r, cwd, place) || (stat(cwd, &st) == 0 && S_ISDIR(st.st_mode)))
        return 0;
    snprintf(r->detail, sizeof r->detail, "%s: the working directory is missing; bring it back",
             cwd);
    return PH_EFILES;
}

bool ph_recovery_enters_late(const struct ph_recovery *r)
{
    return ph_recovery_undo_remakes(r, ph_record_text(r->record, r->record->cwd));
}

int ph_recovery_enter_directory(struct ph_recovery *r)
{
    const char *cwd = ph_record_text(r->record, r->record->cwd);
    char place[PATH_MAX];
    if (ph_recovery_enters_late(r))
        return 0;
    if (ph_recovery_undo_left_at(r, cwd, place))
        cwd = place;
    int fd = is_removed(cwd) ? open_removed(O_PATH | O_CLOEXEC)
                             : open(cwd, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fchdir(fd);
    if (rc != 0)
        snprintf(r->detail, sizeof r->detail, "working directory: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc ? PH_EFILES : 0;
}

static int open_directory(struct ph_recovery *r, const struct ph_file_pm *f)
{
    int flags = ph_reopen_flags(f);
    if (ph_recovery_undo_is_late(r, f)) /* something, for the number to be taken */
        return ph_reopen_place(r, open("/", O_PATH), f);
    int fd =
        f->flags & PH_FILE_DELETED ? open_removed(flags) : open(ph_recovery_path(r, f), flags);
    int rc = ph_reopen_place(r, fd, f);
    if (rc == 0)
        rc = ph_reopen_lock(r, f);
    if (rc == 0 && f->kind == PH_FILE_DIRECTORY && f->position) {
        /* ext4 takes the first place where a description is read for its beginning: positioned
         * at the end it would be found empty after a rewinddir. */
        char some[4096];
        syscall(SYS_getdents64, f->fd, some, sizeof some);
        lseek(f->fd, (off_t)f->position, SEEK_SET); /* a cookie of the file system's */
    }
    return rc;
}

/** A terminal is replaced by the one that recovery runs in, where it has one. */
static int open_device(struct ph_recovery *r, const struct ph_file_pm *f)
{
    if (f->flags & PH_FILE_TTY)
        for (int fd = 0; fd < 3; fd++)
            if (isatty(fd))
                return ph_reopen_place(r, dup(fd), f);
    int fd = open(ph_record_text(r->record, f->path), ph_reopen_flags(f) | O_NOCTTY);
    if (fd < 0 && (f->flags & PH_FILE_TTY))
        fd = open("/dev/null", O_RDWR);
    return ph_reopen_place(r, fd, f);
}

int ph_reopen_dead(struct ph_recovery *r, const struct ph_file_pm *f)
{
    int pair[2];
    if (f->kind == PH_FILE_DEAD && ph_file_fails(f))
        return ph_reopen_place(r, open("/dev/null", O_PATH), f);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return ph_reopen_fail(r, f, "socketpair");
    close(pair[1]);
    int rc = ph_reopen_place(r, pair[0], f);
    return rc == PH_EMFILE && beyond_limit(f->fd) ? 0 : rc; /* it is not there at all, then */
}

static int open_one(struct ph_recovery *r, const struct ph_file_pm *f)
{
    if (f->same_as >= 0)
        return copy_to_its_number(r, f->same_as, f);
    switch ((enum ph_file_kind)f->kind) {
    case PH_FILE_INHERIT:
        return inherit(r, f);
    case PH_FILE_REGULAR:
        return open_regular(r, f);
    case PH_FILE_DIRECTORY:
    case PH_FILE_PATH:
        return open_directory(r, f);
    case PH_FILE_CHAR:
        return open_device(r, f);
    case PH_FILE_DEAD:
        return ph_reopen_dead(r, f);
    default:
        return ph_reopen_special(r, f);
    }
}

/* ---- the whole -------------------------------------------------------------------------- */

void ph_recovery_note_given(void)
{
    for (int fd = 0; fd < 1024 && ngiven < GIVEN_MAX; fd++)
        if (fcntl(fd, F_GETFD) >= 0) {
            given[ngiven].fd = fd;
            given[ngiven++].aside = -1;
        }
}

/** Copies of what the program was given, at numbers that it does not use. */
static int put_given_aside(struct ph_recovery *r)
{
    uint64_t n;
    const struct ph_file_pm *f = ph_reopen_all(r, &n);
    for (uint64_t i = 0; i < n; i++)
        for (size_t g = 0; g < ngiven; g++) {
            bool wanted = f[i].kind == PH_FILE_INHERIT
                              ? given[g].fd == (int)f[i].detail
                              : given[g].fd == f[i].fd && ph_reopen_given(&f[i]) >= 0;
            if (!wanted || given[g].aside >= 0)
                continue;
            given[g].aside =
                beyond_limit(given[g].fd) ? given[g].fd : ph_reopen_aside(r, dup(given[g].fd));
            if (given[g].aside < 0)
                return ph_reopen_fail(r, &f[i], "dup");
        }
    return 0;
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/** Close all but 0 to 2, @p keep and what was put aside. */
static void close_all_but(const int *keep, size_t n)
{
    int sorted[16 + GIVEN_MAX];
    unsigned from = 3;
    size_t count = n < 16 ? n : 16;
    memcpy(sorted, keep, count * sizeof *keep);
    for (size_t g = 0; g < ngiven; g++)
        if (given[g].aside >= 0)
            sorted[count++] = given[g].aside;
    qsort(sorted, count, sizeof *sorted, compare);
    for (size_t i = 0; i < count; i++) {
        if ((unsigned)sorted[i] > from)
            close_range(from, (unsigned)sorted[i] - 1, 0);
        if ((unsigned)sorted[i] >= from)
            from = (unsigned)sorted[i] + 1;
    }
    close_range(from, ~0u, 0);
}

/** Whether it is the child that it was, and has not ended. */
static bool is_alive(pid_t pid, uint64_t started)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *state = ph_stat_field(text, PH_STAT_STATE),
               *start = ph_stat_field(text, PH_STAT_START);
    return start && *state != 'Z' && *state != 'X' && strtoull(start, NULL, 10) == started;
}

static bool has_segments(const struct ph_record_pm *record)
{
    const struct ph_vma_pm *v = (const void *)((const char *)record + record->vmas.offset);
    const struct ph_file_pm *f = (const void *)((const char *)record + record->files.offset);
    bool has = false;
    for (uint64_t i = 0; i < record->vmas.count && !has; i++)
        has = v[i].flags & PH_VMA_SEGMENT;
    for (uint64_t i = 0; i < record->files.count && !has; i++)
        has = f[i].flags & PH_FILE_SEGMENT;
    return has;
}

/**
 * The child that removes the killed program's segments does so now, by their names, and must
 * not meet those that are about to be made anew. Children that are left over may keep it from
 * ending, and would take it along when they end.
 */
static void await_tracker(const struct ph_recovery *r, const struct ph_file_pm *f, uint64_t n)
{
    const struct timespec nap = {0, 5000000};
    while (n && !(f->flags & PH_FILE_TRACKER))
        f++, n--;
    pid_t pid = n ? (pid_t)f->position : 0;
    if (pid <= 0 || !f->birth_ns)
        return;
    for (int i = 0; i < 400 && is_alive(pid, f->birth_ns); i++)
        nanosleep(&nap, NULL);
    if (!has_segments(r->record) || !is_alive(pid, f->birth_ns) || kill(pid, SIGKILL) != 0)
        return;
    for (int i = 0; i < 400 && is_alive(pid, f->birth_ns); i++)
        nanosleep(&nap, NULL);
}

int ph_recovery_open_files(struct ph_recovery *r, const int *keep, size_t n)
{
    uint64_t count;
    const struct ph_file_pm *f = ph_reopen_all(r, &count);
    await_tracker(r, f, count);
    int rc = put_given_aside(r);
    if (rc)
        return rc;
    close_all_but(keep, n);
    for (uint64_t i = 0; i < count; i++)
        if ((rc = open_one(r, &f[i])) != 0)
            return rc;
    for (size_t g = 0; g < ngiven; g++)
        if (given[g].aside >= 0 && !ph_reopen_by_number(r, given[g].aside))
            close(given[g].aside);
    for (int fd = 0; fd < 3; fd++)
        if (!ph_reopen_by_number(r, fd))
            close(fd);
    for (uint64_t i = 0; i < count && rc == 0; i++)
        if (f[i].kind == PH_FILE_EPOLL && f[i].same_as < 0)
            rc = ph_reopen_watch_again(r, &f[i]);
    return rc;
}
