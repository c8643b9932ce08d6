/* SPDX-License-Identifier: MIT */
/*
 * identity_paths.c - /proc/PID and /proc/PID/task/TID, by the numbers that the program knows
 *
 * The calls that Python opens, lists and examines files with. What stands *in* those files
 * (but the program's own stat and status, see identity_files.c), and the listings of /proc and
 * of a task directory, are the kernel's, with real numbers.
 */
#include "identity.h"

#include "libc_next.h"
#include "undo.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define ROOM   256 /* bytes; longer paths below /proc/PID are left as they are */

/** A number at @p p that ends a part of the path, or 0. */
static pid_t number_at(const char *p, const char **end)
{
    long n = 0;
    const char *q = p;
    while (*q >= '0' && *q <= '9' && n < 100000000)
        n = n * 10 + (*q++ - '0');
    *end = q;
    return q > p && *p != '0' && (*q == '/' || *q == 0) ? (pid_t)n : 0;
}

const char *ph_identity_path(const char *path, char *buf, size_t size)
{
    if (!path || strncmp(path, "/proc/", 6) != 0)
        return path;
    const char *rest, *tail = "";
    pid_t shown = number_at(path + 6, &rest), real = ph_identity_real(shown);
    if (!shown && strncmp(path + 6, "self/", 5) == 0)
        rest = path + 10;
    else if (!shown)
        return path;
    pid_t task = strncmp(rest, "/task/", 6) == 0 ? number_at(rest + 6, &tail) : 0;
    pid_t real_task = ph_identity_real(task);
    if (real == shown && real_task == task)
        return path;
    int n = shown ? snprintf(buf, size, "/proc/%d", real) : snprintf(buf, size, "/proc/self");
    if (task)
        n += snprintf(buf + n, size - (size_t)n, "/task/%d%s", real_task, tail);
    else
        n += snprintf(buf + n, size - (size_t)n, "%s", rest);
    return (size_t)n < size ? buf : path;
}

/* ---- the calls -------------------------------------------------------------------------- */

#define MODE_IF_CREATING(flags, mode)                                                          \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                   \
        va_list ap;                                                                            \
        va_start(ap, flags);                                                                   \
        mode = va_arg(ap, mode_t);                                                             \
        va_end(ap);                                                                            \
    }

static int open_path(__typeof__(&open) next, const char *path, int flags, mode_t mode)
{
    char buf[ROOM];
    int fd = ph_identity_file(path, flags);
    if (fd >= 0)
        return fd;
    struct ph_undo_open undo = ph_undo_before_open(AT_FDCWD, path, flags);
    fd = next(ph_identity_path(path, buf, sizeof buf), flags, mode);
    ph_undo_after_open(undo, fd);
    return fd;
}

EXPORT int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_IF_CREATING(flags, mode)
    return open_path(ph_libc_next()->open, path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_IF_CREATING(flags, mode)
    return open_path(ph_libc_next()->open64, path, flags, mode);
}

static int open_at(__typeof__(&openat) next, int dir, const char *path, int flags, mode_t mode)
{
    char buf[ROOM];
    int fd = ph_identity_file(path, flags);
    if (fd >= 0)
        return fd;
    struct ph_undo_open undo = ph_undo_before_open(dir, path, flags);
    fd = next(dir, ph_identity_path(path, buf, sizeof buf), flags, mode);
    ph_undo_after_open(undo, fd);
    return fd;
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_IF_CREATING(flags, mode)
    return open_at(ph_libc_next()->openat, dir, path, flags, mode);
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_IF_CREATING(flags, mode)
    return open_at(ph_libc_next()->openat64, dir, path, flags, mode);
}

/** Those of a stream's mode. */
static int flags_of(const char *mode)
{
    int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
    flags |= mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT | O_APPEND : 0;
    return flags | (strchr(mode, 'x') ? O_EXCL : 0) | (strchr(mode, 'e') ? O_CLOEXEC : 0);
}

static FILE *open_stream(__typeof__(&fopen) next, const char *path, const char *mode)
{
    char buf[ROOM];
    int fd = mode[0] == 'r' ? ph_identity_file(path, flags_of(mode)) : -1;
    if (fd >= 0)
        return fdopen(fd, mode);
    struct ph_undo_open undo = ph_undo_before_stream(path, flags_of(mode));
    FILE *file = next(ph_identity_path(path, buf, sizeof buf), mode);
    ph_undo_after_open(undo, file ? fileno(file) : -1);
    return file;
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
    return open_stream(ph_libc_next()->fopen, path, mode);
}

EXPORT FILE *fopen64(const char *path, const char *mode)
{
    return open_stream(ph_libc_next()->fopen64, path, mode);
}

EXPORT DIR *opendir(const char *path)
{
    char buf[ROOM];
    return ph_libc_next()->opendir(ph_identity_path(path, buf, sizeof buf));
}

EXPORT int access(const char *path, int mode)
{
    char buf[ROOM];
    return ph_libc_next()->access(ph_identity_path(path, buf, sizeof buf), mode);
}

EXPORT int faccessat(int dir, const char *path, int mode, int flags)
{
    char buf[ROOM];
    return ph_libc_next()->faccessat(dir, ph_identity_path(path, buf, sizeof buf), mode, flags);
}

EXPORT int stat(const char *path, struct stat *st)
{
    char buf[ROOM];
    return ph_libc_next()->stat(ph_identity_path(path, buf, sizeof buf), st);
}

EXPORT int stat64(const char *path, struct stat64 *st)
{
    char buf[ROOM];
    return ph_libc_next()->stat64(ph_identity_path(path, buf, sizeof buf), st);
}

EXPORT int lstat(const char *path, struct stat *st)
{
    char buf[ROOM];
    return ph_libc_next()->lstat(ph_identity_path(path, buf, sizeof buf), st);
}

EXPORT int lstat64(const char *path, struct stat64 *st)
{
    char buf[ROOM];
    return ph_libc_next()->lstat64(ph_identity_path(path, buf, sizeof buf), st);
}

EXPORT int fstatat(int dir, const char *path, struct stat *st, int flags)
{
    char buf[ROOM];
    return ph_libc_next()->fstatat(dir, ph_identity_path(path, buf, sizeof buf), st, flags);
}

EXPORT int fstatat64(int dir, const char *path, struct stat64 *st, int flags)
{
    char buf[ROOM];
    return ph_libc_next()->fstatat64(dir, ph_identity_path(path, buf, sizeof buf), st, flags);
}

/** /proc/self is a link that is a number. */
static ssize_t show_link(const char *path, char *to, size_t size, ssize_t n)
{
    char text[32];
    if (n <= 0 || !path || strcmp(path, "/proc/self") != 0)
        return n;
    int length = snprintf(text, sizeof text, "%d", getpid());
    n = (size_t)length < size ? length : (ssize_t)size;
    memcpy(to, text, (size_t)n);
    return n;
}

EXPORT ssize_t readlink(const char *path, char *to, size_t size)
{
    char buf[ROOM];
    ssize_t n = ph_libc_next()->readlink(ph_identity_path(path, buf, sizeof buf), to, size);
    return show_link(path, to, size, n);
}

EXPORT ssize_t readlinkat(int dir, const char *path, char *to, size_t size)
{
    char buf[ROOM];
    ssize_t n =
        ph_libc_next()->readlinkat(dir, ph_identity_path(path, buf, sizeof buf), to, size);
    return show_link(path, to, size, n);
}
