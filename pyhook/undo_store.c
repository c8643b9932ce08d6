/* SPDX-License-Identifier: MIT */
/*
 * undo_store.c - writing to the directory of what the program has done to its files
 *
 * Notes are names of an empty file: one change of a directory each, some microseconds. Bytes
 * are files, synced before their loss; those of mappings, before the epoch is there. See
 * allocator/undo.h.
 */
#include "undo.h"

#include "allocator/syscall.h"
#include "allocator/undo.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define XFS_MAGIC 0x58465342

bool ph_undo_path_of(int fd, char *buf, size_t size)
{
    char link[48], number[24];
    ph_join(link, sizeof link, "/proc/self/fd/", ph_format_u64(number, (uint64_t)fd), NULL);
    long n = ph_syscall(SYS_readlink, link, buf, size - 1);
    buf[n > 0 ? n : 0] = 0;
    return n > 0 && n < (long)size - 1;
}

bool ph_undo_absolute(char *buf, size_t size, int dir, const char *path, uint64_t *dev)
{
    struct stat st;
    char directory[PH_UNDO_PATH];
    size_t n = strlen(path), m;
    while (n > 1 && path[n - 1] == '/')
        n--;
    for (m = n; m && path[m - 1] != '/'; m--)
        ;
    if (m >= sizeof directory || m == n)
        return false;
    memcpy(directory, m ? path : ".", m ? m : 1);
    directory[m ? m : 1] = 0;
    int fd = (int)ph_syscall(SYS_openat, dir, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && ph_undo_path_of(fd, directory, sizeof directory) &&
              (!dev || fstat(fd, &st) == 0);
    if (ok && dev)
        *dev = st.st_dev;
    if (fd >= 0)
        ph_syscall(SYS_close, fd);
    if (!ok || strlen(directory) + 1 + (n - m) >= size)
        return false;
    ph_join(buf, size, strcmp(directory, "/") == 0 ? "" : directory, "/", NULL);
    size_t used = strlen(buf);
    memcpy(buf + used, path + m, n - m);
    buf[used + n - m] = 0;
    return true;
}

#define AT_SIZE (PH_UNDO_MAX + 64)

/** The next name of the directory, absolute. */
static char *next_name(char buf[AT_SIZE])
{
    char epoch[24], number[24];
    uint64_t n = atomic_fetch_add(&PH_CONTROL->undo_number, 1) + 1;
    return ph_join(buf, AT_SIZE, PH_CONTROL->undo_directory, "/",
                   ph_format_u64(epoch, ph_undo_newest()), "-", ph_format_u64(number, n), NULL);
}

/** The name, in the directory, of what notes are names of (U4). */
static char *base_name(char buf[32])
{
    uint64_t id = PH_CONTROL->pool_id;
    char *p = ph_join(buf, 32, PH_UNDO_BASE, NULL) + strlen(PH_UNDO_BASE);
    for (int shift = 60; shift >= 0; shift -= 4)
        *p++ = "0123456789abcdef"[(id >> shift) & 15];
    *p = 0;
    return buf;
}

/** Whether the directory has another pool's. */
static bool is_others(long dir)
{
    const struct ph_dirent *d;
    _Alignas(8) char buf[4096];
    char own[32];
    long n;
    base_name(own);
    while ((n = ph_syscall(SYS_getdents64, dir, buf, sizeof buf)) > 0)
        for (long at = 0; at < n; at += d->reclen) {
            d = (void *)(buf + at);
            if (ph_starts_with(d->name, PH_UNDO_BASE) && !ph_starts_with(d->name, own))
                return true;
        }
    return false;
}

/** The directory, which must be ours alone. @return a descriptor, or negative errno. */
static long open_directory(void)
{
    const char *path = PH_CONTROL->undo_directory;
    struct stat st;
    char base[32];
    long made = path[0] ? ph_syscall(SYS_mkdir, path, 0700) : -ENAMETOOLONG, fd = -EPERM;
    if (made < 0 && made != -EEXIST)
        return made;
    long dir = ph_syscall(SYS_open, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return dir;
    if (fstat((int)dir, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 022)) {
        if (ph_syscall(SYS_faccessat, dir, base_name(base), F_OK) == 0)
            return dir;
        fd = is_others(dir) ? -EBUSY
                            : ph_syscall(SYS_openat, dir, base,
                                         O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0)
            ph_syscall(SYS_close, fd);
        if (fd >= 0 || fd == -EEXIST)
            return dir;
    }
    ph_syscall(SYS_close, dir);
    return fd;
}

#define BASE_SIZE (PH_UNDO_MAX + 32)

static char *base_path(char buf[BASE_SIZE])
{
    char own[32];
    return ph_join(buf, BASE_SIZE, PH_CONTROL->undo_directory, "/", base_name(own), NULL);
}

/** After @p at has been made (U5). @return 0; -ENOENT: it is gone again, and has to be made
 *  once more after open_directory. */
static long make_sure_of(const char *at)
{
    char base[BASE_SIZE];
    if (ph_syscall(SYS_access, base_path(base), F_OK) == 0)
        return 0;
    ph_syscall(SYS_unlink, at);
    return -ENOENT;
}

/** What is in the directory, and its own name. */
static long sync_directory(long dir)
{
    long err = ph_syscall(SYS_fsync, dir);
    long parent = ph_syscall(SYS_openat, dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0) {
        ph_syscall(SYS_fsync, parent);
        ph_syscall(SYS_close, parent);
    }
    return err;
}

/* ---- notes ------------------------------------------------------------------------------ */

/** Whether changes of directories on device @p dev become durable in their order (U2). */
static bool keeps_order(uint64_t dev)
{
    static uint64_t asked; /* the life that this is of, + 1: another one has other disks */
    static uint64_t directory_dev;
    static bool journals;
    if (asked != PH_CONTROL->generation + 1) {
        struct statfs fs;
        struct stat st;
        long dir = open_directory();
        bool known = dir >= 0 && fstatfs((int)dir, &fs) == 0 && fstat((int)dir, &st) == 0;
        if (dir >= 0)
            ph_syscall(SYS_close, dir);
        if (!known)
            return false;
        journals =
            fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_MAGIC || fs.f_type == TMPFS_MAGIC;
        directory_dev = st.st_dev;
        asked = PH_CONTROL->generation + 1;
    }
    return journals && dev == directory_dev;
}

/** What is kept of a removed file, beside its note @p at. */
static char *link_name(char to[AT_SIZE + 8], const char *at)
{
    return ph_join(to, AT_SIZE + 8, at, PH_UNDO_LINK, NULL);
}

static long link_file(int fd, const char *at)
{
    char from[48], number[24], to[AT_SIZE + 8];
    ph_join(from, sizeof from, "/proc/self/fd/", ph_format_u64(number, (uint64_t)fd), NULL);
    return ph_syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, link_name(to, at),
                      AT_SYMLINK_FOLLOW);
}

__thread char ph_undo_making[NAME_MAX + 1];

/** What a note is called that is its own text. @return false: it cannot be. */
static bool name_it(char name[AT_SIZE + NAME_MAX], const char *at, const char *text)
{
    struct timespec now = {0};
    char time[24];
    size_t directory = strlen(PH_CONTROL->undo_directory) + 1;
    /* The clock that inodes have their times from. */
    ph_syscall(SYS_clock_gettime, CLOCK_REALTIME_COARSE, &now);
    ph_format_u64(time, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    if (strlen(at + directory) + strlen(time) + strlen(text) + 2 > NAME_MAX ||
        strchr(text, '\\'))
        return false;
    ph_join(name, AT_SIZE + NAME_MAX, at, ":", time, ":", text, NULL);
    for (char *p = name + directory; *p; p++)
        *p = *p == '/' ? '\\' : *p;
    return true;
}

static long link_text(const char *at, const char *text)
{
    char base[BASE_SIZE];
    long err = ph_syscall(SYS_access, base_path(base), F_OK);
    if (!err)
        err = ph_syscall(SYS_symlink, text, at);
    return err ? err : make_sure_of(at);
}

/** @param named whether it may be a name. */
static long write_note(const char *at, const char *text, bool named)
{
    char name[AT_SIZE + NAME_MAX], base[BASE_SIZE];
    base_path(base);
    long err;
    if (!named || !name_it(name, at, text))
        return link_text(at, text);
    err = ph_syscall(SYS_link, base, name);
    if (err == -EMLINK) { /* of another one there may be as many */
        ph_syscall(SYS_unlink, base);
        return -ENOENT;
    }
    if (err && err != -ENOENT && err != -EEXIST)
        return link_text(at, text);
    if (!err && text[0] == PH_UNDO_MAKES)
        ph_join(ph_undo_making, sizeof ph_undo_making,
                name + strlen(PH_CONTROL->undo_directory) + 1, NULL);
    return err;
}

/** What this thread was about to make is made: its note says so. @return false: it has none. */
static bool complete_note(const char *text)
{
    char at[AT_SIZE], old[AT_SIZE + NAME_MAX], name[AT_SIZE + NAME_MAX];
    if (!ph_undo_making[0])
        return false;
    ph_join(old, sizeof old, PH_CONTROL->undo_directory, "/", ph_undo_making, NULL);
    *strchr(ph_undo_making, ':') = 0;
    ph_join(at, sizeof at, PH_CONTROL->undo_directory, "/", ph_undo_making, NULL);
    ph_undo_making[0] = 0;
    return name_it(name, at, text) && ph_syscall(SYS_rename, old, name) == 0;
}

static long make_note(const char *text, int link, bool named)
{
    char at[AT_SIZE], to[AT_SIZE + 8];
    for (int tries = 0;; tries++) {
        next_name(at);
        long err = link < 0 ? 0 : link_file(link, at);
        if (!err && (err = write_note(at, text, named)) != 0 && link >= 0)
            ph_syscall(SYS_unlink, link_name(to, at));
        if ((err != -EEXIST && err != -ENOENT) || tries == 100)
            return err;
        /* The keeper removes the directory when it is empty, at any moment. */
        long dir = err == -ENOENT ? open_directory() : -EEXIST;
        if (dir >= 0)
            ph_syscall(SYS_close, dir);
        else if (dir != -EEXIST && dir != -ENOENT)
            return dir;
    }
}

long ph_undo_note(const struct ph_undo_note *n)
{
    char text[PH_UNDO_MAX], kind[2] = {(char)n->kind, 0};
    char life[24], dev[24], ino[24], birth[24], value[24], sum[24], length[24];
    size_t size = strlen(n->path);
    if (size >= PH_UNDO_PATH || (n->to && strlen(n->to) >= PH_UNDO_PATH))
        return -ENAMETOOLONG;
    ph_join(text, sizeof text, kind, ":", ph_format_u64(life, PH_CONTROL->undo_first), ":",
            ph_format_u64(dev, n->dev), ":", ph_format_u64(ino, n->ino), ":",
            ph_format_u64(birth, n->birth_ns), ":", ph_format_u64(value, n->value), ":",
            ph_format_u64(sum, n->sum), ":", ph_format_u64(length, size), ":", n->path,
            n->to ? n->to : "", NULL);
    bool ordered = keeps_order(n->dev);
    if (n->kind == PH_UNDO_MAKES)
        ph_undo_making[0] = 0;
    else if ((n->kind == PH_UNDO_MADE || n->kind == PH_UNDO_MADE_DIRECTORY) &&
             complete_note(text))
        return 0;
    long err = make_note(text, n->kind == PH_UNDO_REMOVED ? n->link : -1, ordered);
    if (!err && !ordered) {
        long dir = open_directory();
        err = dir < 0 ? dir : sync_directory(dir);
        if (dir >= 0)
            ph_syscall(SYS_close, dir);
    }
    return err;
}

/* ---- durable with an epoch -------------------------------------------------------------- */

#define LATER_MAX 32 /* open at a time */
#define SPARE     8  /* descriptors that are left for other things */

/** While all threads are parked: what the keeper makes durable before it commits (U2). */
static struct {
    bool on, some;
    int fd[LATER_MAX];
    size_t n;
    int rc;
} later;

static void send_later(void)
{
    int rc = later.n ? ph_files_send(ph_capture.epoch, later.fd, later.n) : 0;
    later.rc = later.rc ? later.rc : rc;
    while (later.n)
        ph_syscall(SYS_close, later.fd[--later.n]);
}

static void put_off(int fd)
{
    struct rlimit limit;
    later.some = true;
    later.fd[later.n++] = fd;
    if (later.n == LATER_MAX || getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
        (rlim_t)fd + SPARE >= limit.rlim_cur)
        send_later();
}

void ph_undo_later_begin(void)
{
    later.on = true;
    later.some = false;
    later.rc = 0;
}

int ph_undo_later_end(void)
{
    send_later();
    later.on = false;
    long dir = later.some ? open_directory() : -ENOENT;
    if (dir >= 0) {
        later.fd[later.n++] = (int)dir;
        long parent = ph_syscall(SYS_openat, dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (parent >= 0)
            later.fd[later.n++] = (int)parent;
        send_later();
    }
    return later.rc;
}

/* ---- bytes ------------------------------------------------------------------------------ */

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

/** @return a descriptor, or negative errno. */
static long make_file(char at[AT_SIZE])
{
    long fd;
    do
        fd = ph_syscall(SYS_open, next_name(at), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    while (fd == -EEXIST);
    if (fd >= 0 && make_sure_of(at)) {
        ph_syscall(SYS_close, fd);
        return -ENOENT;
    }
    return fd;
}

#define WORTH_A_CLONE (UINT64_C(1) << 20) /* bytes */

/** Have @p file share the blocks of what is cut off, where the file system can do so: whatever
 *  its size, nothing is copied. @return whether it does. */
static bool clone_bytes(int file, const struct ph_undo_bytes *what)
{
    struct file_clone_range range = {what->fd, what->from, what->to - what->from,
                                     PH_UNDO_CLONE};
    return !what->middle && what->to - what->from >= WORTH_A_CLONE &&
           ph_syscall(SYS_ioctl, file, FICLONERANGE, &range) == 0;
}

long ph_undo_write(const struct ph_undo_bytes *what, const char *path)
{
    char at[AT_SIZE];
    _Alignas(8) char padded[PH_UNDO_MAX] = {0};
    struct stat self = {0};
    size_t n = strlen(path) + 1;
    long dir, file;
    for (int tries = 0;; tries++) {
        dir = open_directory();
        file = dir < 0 ? dir : make_file(at);
        if (file != -ENOENT || tries == 100)
            break;
        if (dir >= 0)
            ph_syscall(SYS_close, dir);
    }
    struct out out = {(int)file, file < 0 ? file : 0, PH_UNDO_SEED};
    if (file >= 0)
        fstat((int)file, &self);
    bool cloned = file >= 0 && clone_bytes((int)file, what), kept = cloned || !what->large;
    struct ph_undo_pm head = {.magic = PH_UNDO_MAGIC,
                              .epoch = ph_undo_newest(),
                              .from = what->from,
                              .to = what->to,
                              .dev = what->st->st_dev,
                              .ino = what->st->st_ino,
                              .self = self.st_ino,
                              .path_size = (uint32_t)n,
                              .flags = what->middle ? PH_UNDO_MIDDLE
                                       : cloned     ? PH_UNDO_CLONED
                                                    : 0};
    if (n > sizeof padded)
        out.err = -ENAMETOOLONG;
    memcpy(padded, path, n < sizeof padded ? n : sizeof padded);
    put(&out, &head, sizeof head);
    if (!out.err)
        put(&out, padded, (n + 7) & ~(size_t)7);
    if (!cloned && kept)
        put_parts(&out, what->fd, what->own && !what->middle, what->from, what->to);
    put(&out, &(struct ph_undo_piece_pm){PH_UNDO_END, out.hash}, 16);
    bool putting_off = !out.err && kept && later.on;
    if (!out.err && kept && !later.on)
        out.err = ph_syscall(SYS_fdatasync, file);
    if (!out.err && kept && !later.on)
        out.err = sync_directory(dir);
    if (putting_off) {
        put_off((int)file);
    } else if (file >= 0) {
        ph_syscall(SYS_close, file);
        if (out.err || !kept)
            ph_syscall(SYS_unlink, at);
    }
    if (dir >= 0)
        ph_syscall(SYS_close, dir);
    return out.err;
}

void ph_undo_complain(const char *what, const char *path, long err)
{
    static atomic_bool said;
    if (!atomic_exchange(&said, true))
        ph_agent_say(what, path, " could not be kept (",
                     err == -EBUSY ? "the pool's name, and its directory, are another's by now"
                                   : strerrordesc_np((int)-err),
                     "): until its next epoch, recovery cannot bring it back", NULL);
}
