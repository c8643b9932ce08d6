/* SPDX-License-Identifier: MIT */
/*
 * undo.c - what the program cuts off its files is kept while an epoch needs it
 *
 * Files that were open at an epoch come back as they were then (allocator/undo.h). The
 * calls that cut files are interposed; those of a file that was open call here first. What is
 * cut off for the second time since the epoch, or was written after it, nobody needs.
 *
 *   N1  While a file is cut (`busy`) no epoch is taken, and while one is taken no file is cut:
 *       what was kept belongs to the epoch that is the newest when the cut happens.
 *   N2  `stale` is true in the memory that an epoch saves, and false otherwise: a recovered
 *       program, whose table is of the epoch before, keeps what is cut off any file until its
 *       next epoch. That is more than is needed, and never wrong.
 *   N3  Closing a descriptor of a file loses the process's locks on it (fcntl(2)). A file with
 *       such a lock is read by the program's own descriptor or not at all.
 *   N4  The newest epoch is not durable yet when the program goes on, and --epoch goes back to
 *       older ones: a file that has been closed since is looked after for as many epochs as the
 *       pool keeps.
 *
 * If it cannot be kept, a full disk for instance, the program is told by a line on stderr,
 * once, and cuts its file all the same.
 */
#include "undo.h"

#include "allocator/syscall.h"
#include "allocator/undo.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 256

struct file {
    uint64_t dev, ino;
    uint64_t kept_from; /* bytes from here on are kept, or were not there */
    uint64_t epoch;     /* the newest one that had it open */
    uint32_t path;      /* there; in the strings of the last capture */
};

/** Those that were open at the newest epoch, or at an older one that may be gone back to. */
static struct {
    struct file file[FILES_MAX];
    unsigned n;
    uint64_t unknown; /* an epoch that may have had others open: all files are looked after */
    uint64_t epoch;   /* the newest one */
    bool has_paths;   /* the last capture was that of the newest epoch */
} open_then;

static atomic_bool stale;
static atomic_int busy;
static __thread int inside_calls; /* of this thread; an epoch counts as one */

/* ---- no cut during an epoch, no epoch during a cut (N1) --------------------------------- */

/** The newest epoch; 0: there is none. */
static uint64_t newest(void)
{
    return atomic_load(&stale) ? PH_CONTROL->first_epoch : open_then.epoch;
}

bool ph_undo_enter(void)
{
    if (!ph_agent_active() || !newest())
        return false;
    while (inside_calls == 0) {
        atomic_fetch_add(&busy, 1);
        if (!atomic_load(&ph_agent.in_epoch))
            break;
        atomic_fetch_sub(&busy, 1);
        ph_settle_pause();
    }
    inside_calls++;
    return true;
}

void ph_undo_after(bool inside)
{
    if (inside && --inside_calls == 0)
        atomic_fetch_sub(&busy, 1);
}

void ph_undo_epoch_begin(void)
{
    while (inside_calls == 0 && atomic_load(&busy))
        ph_settle_pause();
    inside_calls++;
}

void ph_undo_epoch_end(void)
{
    inside_calls--;
}

/* ---- which files ------------------------------------------------------------------------ */

bool ph_undo_of_database(const char *path)
{
    static const char *const suffix[] = {"-journal", "-wal", "-shm"};
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof suffix / sizeof suffix[0]; i++) {
        size_t m = strlen(suffix[i]);
        if (n > m && strcmp(path + n - m, suffix[i]) == 0)
            return true;
    }
    return false;
}

void ph_undo_capture_begin(void)
{
    atomic_store(&stale, true);
}

/** Whether @p epoch can be gone back to still (N4). What it needed is kept no longer than that,
 * and then its files' inode numbers may be those of others. */
static bool matters(uint64_t epoch)
{
    return epoch + PH_CONTROL->keep > atomic_load(&PH_CONTROL->durable);
}

static void forget_old(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < open_then.n; i++)
        if (matters(open_then.file[i].epoch))
            open_then.file[n++] = open_then.file[i];
    open_then.n = n;
    if (!matters(open_then.unknown))
        open_then.unknown = 0;
}

static void note(const struct ph_file_pm *f)
{
    unsigned i = 0;
    while (i < open_then.n &&
           (open_then.file[i].ino != f->ino || open_then.file[i].dev != f->dev))
        i++;
    if (i == FILES_MAX) {
        open_then.unknown = open_then.epoch;
        return;
    }
    open_then.n += i == open_then.n;
    open_then.file[i] = (struct file){f->dev, f->ino, f->size, open_then.epoch, f->path};
}

void ph_undo_capture_end(bool taken)
{
    size_t n;
    const struct ph_file_pm *f = ph_files_all(&n);
    atomic_store(&stale, false);
    open_then.has_paths = taken;
    if (!taken)
        return;
    if (PH_CONTROL->first_epoch > open_then.epoch) { /* N2 */
        open_then.n = 0;
        open_then.unknown = PH_CONTROL->first_epoch;
    }
    open_then.epoch = ph_capture.epoch;
    forget_old();
    for (size_t i = 0; i < n; i++) {
        const char *path = (const char *)ph_agent.areas.strings.base + f[i].path;
        if (f[i].kind == PH_FILE_REGULAR && f[i].same_as < 0 &&
            !(f[i].flags & (PH_FILE_DELETED | PH_FILE_KEPT)) && !ph_undo_of_database(path))
            note(&f[i]);
    }
}

/** Where what needs no keeping begins, of a file; NULL: no epoch needs it. */
static uint64_t *kept_from(const struct stat *st, uint64_t *whole)
{
    for (unsigned i = 0; i < open_then.n && !atomic_load(&stale); i++)
        if (open_then.file[i].ino == st->st_ino && open_then.file[i].dev == st->st_dev &&
            matters(open_then.file[i].epoch))
            return &open_then.file[i].kept_from;
    *whole = (uint64_t)st->st_size;
    return atomic_load(&stale) || open_then.unknown ? whole : NULL;
}

/** Whether @p path is that of a file that was open, with something like ".1" behind it. */
static bool is_sibling(const char *path)
{
    for (unsigned i = 0; i < open_then.n && open_then.has_paths; i++) {
        const struct file *f = &open_then.file[i];
        const char *name = (const char *)ph_agent.areas.strings.base + f->path;
        size_t n = strlen(name);
        if (f->epoch == open_then.epoch && strncmp(path, name, n) == 0 && path[n] == '.')
            return true;
    }
    return false;
}

bool ph_undo_needs_name(const struct stat *st, const char *path, bool *certain)
{
    uint64_t whole, *from = kept_from(st, &whole);
    *certain = from && from != &whole;
    return !ph_undo_of_database(path) && (from || is_sibling(path));
}

bool ph_undo_path_of(int fd, char *buf, size_t size)
{
    char link[48], number[24];
    ph_join(link, sizeof link, "/proc/self/fd/", ph_format_u64(number, (uint64_t)fd), NULL);
    long n = ph_syscall(SYS_readlink, link, buf, size - 1);
    buf[n > 0 ? n : 0] = 0;
    return n > 0 && n < (long)size - 1;
}

/* ---- keeping ---------------------------------------------------------------------------- */

struct out {
    int fd;
    long err; /* negative errno; 0 */
    uint64_t hash;
};

/** @param n a multiple of 8 */
static void put(struct out *out, const void *bytes, size_t n)
{
    out->hash = ph_undo_hash(out->hash, bytes, n / 8);
    for (const char *p = bytes; n && !out->err;) {
        long r = ph_syscall(SYS_write, out->fd, p, n);
        if (r < 0 && r != -EINTR)
            out->err = r;
        p += r > 0 ? r : 0;
        n -= r > 0 ? (size_t)r : 0;
    }
}

static void put_part(struct out *out, int fd, uint64_t start, uint64_t end)
{
    _Alignas(8) char buf[8192];
    put(out, &(struct ph_undo_piece_pm){start, end - start}, sizeof(struct ph_undo_piece_pm));
    while (start < end && !out->err) {
        uint64_t n = end - start < sizeof buf ? end - start : sizeof buf;
        for (uint64_t got = 0; got < n && !out->err;) {
            long r = ph_syscall(SYS_pread64, fd, buf + got, n - got, start + got);
            if (r <= 0 && r != -EINTR)
                out->err = r ? r : -EIO;
            got += r > 0 ? (uint64_t)r : 0;
        }
        memset(buf + n, 0, -n & 7);
        put(out, buf, (n + 7) & ~UINT64_C(7));
        start += n;
    }
}

/** @param own whether @p fd is ours, and can be positioned: then holes are left out. */
static void put_parts(struct out *out, int fd, bool own, uint64_t from, uint64_t to)
{
    while (from < to && !out->err) {
        long start = own ? ph_syscall(SYS_lseek, fd, from, SEEK_DATA) : -EINVAL, end = -EINVAL;
        if (start == -ENXIO || start >= (long)to)
            return; /* a hole to the end */
        if (start >= 0)
            end = ph_syscall(SYS_lseek, fd, start, SEEK_HOLE);
        if (start < 0 || end <= start) {
            start = (long)from;
            end = (long)to;
        }
        put_part(out, fd, (uint64_t)start, (uint64_t)end < to ? (uint64_t)end : to);
        from = (uint64_t)end;
    }
}

/** The directory, which must be ours alone. @return a descriptor, or negative errno. */
static long open_directory(void)
{
    const char *path = PH_CONTROL->undo_directory;
    struct stat st;
    long made = path[0] ? ph_syscall(SYS_mkdir, path, 0700) : -ENAMETOOLONG;
    if (made < 0 && made != -EEXIST)
        return made;
    long dir = ph_syscall(SYS_open, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return dir;
    if (fstat((int)dir, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 022)) {
        ph_syscall(SYS_close, dir);
        return -EPERM;
    }
    long parent =
        made ? -1 : ph_syscall(SYS_openat, dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0) {
        ph_syscall(SYS_fsync, parent);
        ph_syscall(SYS_close, parent);
    }
    return dir;
}

/** A new file in the directory, with the next number. */
static long make_file(long dir, char name[64])
{
    static atomic_ulong last;
    char epoch[24], number[24];
    long fd;
    do {
        ph_join(name, 64, ph_format_u64(epoch, newest()), "-",
                ph_format_u64(number, atomic_fetch_add(&last, 1) + 1), NULL);
        fd = ph_syscall(SYS_openat, dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    } while (fd == -EEXIST);
    return fd;
}

/** Make the file, and the link that belongs to it. @return a descriptor, or negative errno. */
static long make_both(long dir, int link, char name[64])
{
    char from[48], number[24], to[64 + sizeof PH_UNDO_LINK];
    long file = make_file(dir, name), err = 0;
    if (file < 0 || link < 0)
        return file;
    ph_join(from, sizeof from, "/proc/self/fd/", ph_format_u64(number, (uint64_t)link), NULL);
    ph_join(to, sizeof to, name, PH_UNDO_LINK, NULL);
    err = ph_syscall(SYS_linkat, AT_FDCWD, from, dir, to, AT_SYMLINK_FOLLOW);
    if (err == 0)
        return file;
    ph_syscall(SYS_close, file);
    ph_syscall(SYS_unlinkat, dir, name, 0);
    return err;
}

static void remove_both(long dir, int link, const char *name)
{
    char to[64 + sizeof PH_UNDO_LINK];
    ph_syscall(SYS_unlinkat, dir, name, 0);
    ph_join(to, sizeof to, name, PH_UNDO_LINK, NULL);
    if (link >= 0)
        ph_syscall(SYS_unlinkat, dir, to, 0);
}

long ph_undo_write(const struct ph_undo_what *what, const char *path, size_t n)
{
    char name[64];
    _Alignas(8) char padded[PH_UNDO_MAX] = {0};
    struct stat self = {0};
    long dir, file;
    /* The keeper removes it when it is empty, at any moment from its making on. */
    for (int tries = 0;; tries++) {
        dir = open_directory();
        file = dir < 0 ? dir : make_both(dir, what->link, name);
        if (file != -ENOENT || tries == 100)
            break;
        if (dir >= 0)
            ph_syscall(SYS_close, dir);
    }
    struct out out = {(int)file, file < 0 ? file : 0, PH_UNDO_SEED};
    if (file >= 0)
        fstat((int)file, &self);
    struct ph_undo_pm head = {.magic = PH_UNDO_MAGIC,
                              .epoch = newest(),
                              .from = what->from,
                              .to = what->to,
                              .dev = what->st->st_dev,
                              .ino = what->st->st_ino,
                              .self = self.st_ino,
                              .path_size = (uint32_t)n,
                              .flags = what->flags};
    if (n > sizeof padded)
        out.err = -ENAMETOOLONG;
    memcpy(padded, path, n < sizeof padded ? n : sizeof padded);
    put(&out, &head, sizeof head);
    if (!out.err)
        put(&out, padded, (n + 7) & ~(size_t)7);
    put_parts(&out, what->fd, what->own, what->from, what->to);
    put(&out, &(struct ph_undo_piece_pm){PH_UNDO_END, out.hash}, 16);
    if (!out.err)
        out.err = ph_syscall(SYS_fdatasync, file);
    if (!out.err)
        out.err = ph_syscall(SYS_fsync, dir);
    if (file >= 0) {
        ph_syscall(SYS_close, file);
        if (out.err)
            remove_both(dir, what->link, name);
    }
    if (dir >= 0)
        ph_syscall(SYS_close, dir);
    return out.err;
}

void ph_undo_complain(const char *what, const char *path, long err)
{
    static atomic_bool said;
    if (!atomic_exchange(&said, true))
        ph_agent_say(what, path, " could not be kept (", strerrordesc_np((int)-err),
                     "): until its next epoch, recovery will refuse for this file", NULL);
}

/** Whether the process has a lock, or a lease, on the file of @p fd. */
static bool is_locked(const char *number)
{
    char path[48], text[2048];
    ph_join(path, sizeof path, "/proc/self/fdinfo/", number, NULL);
    long fd = ph_syscall(SYS_open, path, O_RDONLY | O_CLOEXEC);
    long n = fd < 0 ? -1 : ph_syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0)
        ph_syscall(SYS_close, fd);
    text[n > 0 ? n : 0] = 0;
    return n < 0 || strstr(text, "POSIX") || strstr(text, "LEASE");
}

/** The file of @p fd is about to have @p length bytes. */
static void keep(int fd, const struct stat *st, uint64_t length)
{
    char link[48], number[24], path[PH_UNDO_MAX];
    uint64_t whole, *from = kept_from(st, &whole), to;
    if (!from || length >= *from || length >= (uint64_t)st->st_size)
        return;
    to = *from < (uint64_t)st->st_size ? *from : (uint64_t)st->st_size;
    ph_join(link, sizeof link, "/proc/self/fd/", ph_format_u64(number, (uint64_t)fd), NULL);
    ph_undo_path_of(fd, path, sizeof path);
    if (st->st_nlink == 0 || ph_undo_of_database(path))
        return;
    int flags = fcntl(fd, F_GETFL);
    bool locked = is_locked(number),
         can_read = !(flags & O_PATH) && (flags & O_ACCMODE) == O_RDWR;
    long own = locked ? -EBUSY : ph_syscall(SYS_open, link, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct ph_undo_what what = {st, own < 0 ? fd : (int)own, -1, own >= 0, 0, length, to};
    long err = own < 0 && !can_read ? own : ph_undo_write(&what, path, strlen(path) + 1);
    if (own >= 0)
        ph_syscall(SYS_close, own);
    if (err)
        ph_undo_complain("what the program cuts off ", path, err);
    else
        *from = length;
}

/* ---- before the calls ------------------------------------------------------------------- */

/** @p fd: the file; ours to close if it is a path that is to be cut. */
static bool before(int dir, const char *path, int fd, off_t length)
{
    struct stat st = {0};
    int state, saved = errno;
    if (!ph_undo_enter())
        return false;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    int file = path ? (int)ph_syscall(SYS_openat, dir, path, O_PATH | O_CLOEXEC) : fd;
    if (file >= 0 && fstat(file, &st) == 0 && S_ISREG(st.st_mode) && length >= 0)
        keep(file, &st, (uint64_t)length);
    bool regular = file >= 0 && S_ISREG(st.st_mode);
    if (path && file >= 0)
        ph_syscall(SYS_close, file);
    pthread_setcancelstate(state, NULL);
    errno = saved;
    if (!regular) { /* opening a FIFO may wait for long */
        ph_undo_after(true);
        return false;
    }
    return true;
}

bool ph_undo_before_open(int dir, const char *path, int flags)
{
    bool empties = (flags & O_TRUNC) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    return empties && path && before(dir, path, -1, 0);
}

bool ph_undo_before_truncate(const char *path, off_t length)
{
    return path && before(AT_FDCWD, path, -1, length);
}

bool ph_undo_before_ftruncate(int fd, off_t length)
{
    return before(AT_FDCWD, NULL, fd, length);
}
