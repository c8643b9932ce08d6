/* SPDX-License-Identifier: MIT */
/*
 * undo_calls.c - the calls that change files and names, but for those that open: see undo.c
 *
 * libc itself does not come by here: what is written through a stdio stream is kept when that
 * is opened (identity_paths.c). On x86-64 an off64_t is an off_t.
 */
#include "libc_next.h"
#include "undo.h"

#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int ftruncate(int fd, off_t length)
{
    bool undo = ph_undo_before_ftruncate(fd, length);
    int rc = ph_libc_next()->ftruncate(fd, length);
    ph_undo_after(undo);
    return rc;
}

EXPORT int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

EXPORT int truncate(const char *path, off_t length)
{
    bool undo = ph_undo_before_truncate(path, length);
    int rc = ph_libc_next()->truncate(path, length);
    ph_undo_after(undo);
    return rc;
}

EXPORT int truncate64(const char *path, off64_t length)
{
    return truncate(path, length);
}

EXPORT int creat(const char *path, mode_t mode)
{
    return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

EXPORT int creat64(const char *path, mode_t mode)
{
    return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* ---- names ------------------------------------------------------------------------------ */

EXPORT int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

EXPORT int unlinkat(int dir, const char *path, int flags)
{
    bool undo = ph_undo_before_unlink(dir, path, flags & AT_REMOVEDIR);
    int rc = ph_libc_next()->unlinkat(dir, path, flags);
    ph_undo_after(undo);
    return rc;
}

EXPORT int remove(const char *path)
{
    bool undo = ph_undo_before_unlink(AT_FDCWD, path, false);
    int rc = ph_libc_next()->remove(path);
    ph_undo_after(undo);
    return rc;
}

EXPORT int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    bool undo = ph_undo_before_rename(from_dir, from, to_dir, to);
    int rc = ph_libc_next()->renameat(from_dir, from, to_dir, to);
    ph_undo_after(undo);
    return rc;
}

EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    struct stat st;
    bool fails =
        (flags & RENAME_NOREPLACE) && fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) == 0;
    bool undo = !(flags & ~RENAME_NOREPLACE) && !fails &&
                ph_undo_before_rename(from_dir, from, to_dir, to);
    int rc = ph_libc_next()->renameat2(from_dir, from, to_dir, to, flags);
    ph_undo_after(undo);
    return rc;
}

EXPORT int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

EXPORT int mkdirat(int dir, const char *path, mode_t mode)
{
    bool undo = ph_undo_before_making(dir, path, S_IFDIR);
    int rc = ph_libc_next()->mkdirat(dir, path, mode);
    ph_undo_after_making(undo, dir, rc ? NULL : path);
    return rc;
}

EXPORT int symlink(const char *text, const char *path)
{
    return symlinkat(text, AT_FDCWD, path);
}

EXPORT int symlinkat(const char *text, int dir, const char *path)
{
    bool undo = ph_undo_before_making(dir, path, S_IFLNK);
    int rc = ph_libc_next()->symlinkat(text, dir, path);
    ph_undo_after_making(undo, dir, rc ? NULL : path);
    return rc;
}

EXPORT int link(const char *from, const char *path)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, path, 0);
}

EXPORT int linkat(int from_dir, const char *from, int dir, const char *path, int flags)
{
    bool undo = ph_undo_before_link(from_dir, from, dir, path, flags);
    int rc = ph_libc_next()->linkat(from_dir, from, dir, path, flags);
    ph_undo_after(undo);
    return rc;
}

EXPORT int mkfifo(const char *path, mode_t mode)
{
    return mkfifoat(AT_FDCWD, path, mode);
}

EXPORT int mkfifoat(int dir, const char *path, mode_t mode)
{
    bool undo = ph_undo_before_making(dir, path, S_IFIFO);
    int rc = ph_libc_next()->mkfifoat(dir, path, mode);
    ph_undo_after_making(undo, dir, rc ? NULL : path);
    return rc;
}

EXPORT int mknod(const char *path, mode_t mode, dev_t dev)
{
    return mknodat(AT_FDCWD, path, mode, dev);
}

EXPORT int mknodat(int dir, const char *path, mode_t mode, dev_t dev)
{
    mode_t type = mode & S_IFMT ? mode & S_IFMT : S_IFREG;
    bool undo = ph_undo_before_making(dir, path, type);
    int rc = ph_libc_next()->mknodat(dir, path, mode, dev);
    ph_undo_after_making(undo, dir, rc ? NULL : path);
    return rc;
}

/** A socket may get a name among the files. */
EXPORT int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    char path[sizeof((struct sockaddr_un *)0)->sun_path + 1] = "";
    size_t before = offsetof(struct sockaddr_un, sun_path);
    if (size > before && size <= sizeof(struct sockaddr_un) && address->sa_family == AF_UNIX)
        memcpy(path, (const char *)address + before, size - before);
    bool undo = path[0] && ph_undo_before_making(AT_FDCWD, path, S_IFSOCK);
    int rc = ph_libc_next()->bind(fd, address, size);
    ph_undo_after_making(undo, AT_FDCWD, rc ? NULL : path);
    return rc;
}

/* ---- writing ---------------------------------------------------------------------------- */

static size_t sum_of(const struct iovec *v, int n)
{
    size_t sum = 0;
    for (int i = 0; v && i < n; i++)
        sum += v[i].iov_len;
    return sum;
}

EXPORT ssize_t write(int fd, const void *bytes, size_t n)
{
    bool undo = ph_undo_before_write(fd, -1, n);
    ssize_t rc = ph_libc_next()->write(fd, bytes, n);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    bool undo = ph_undo_before_write(fd, at, n);
    ssize_t rc = ph_libc_next()->pwrite(fd, bytes, n, at);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
    return pwrite(fd, bytes, n, at);
}

EXPORT ssize_t writev(int fd, const struct iovec *v, int n)
{
    bool undo = ph_undo_before_write(fd, -1, sum_of(v, n));
    ssize_t rc = ph_libc_next()->writev(fd, v, n);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    bool undo = ph_undo_before_write(fd, at, sum_of(v, n));
    ssize_t rc = ph_libc_next()->pwritev(fd, v, n, at);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at)
{
    return pwritev(fd, v, n, at);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int flags)
{
    bool undo = ph_undo_before_write(fd, at, sum_of(v, n));
    ssize_t rc = ph_libc_next()->pwritev2(fd, v, n, at, flags);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t at, int flags)
{
    return pwritev2(fd, v, n, at, flags);
}

EXPORT ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *at, size_t n,
                               unsigned flags)
{
    bool undo = ph_undo_before_write(fd, at ? *at : -1, n);
    ssize_t rc = ph_libc_next()->copy_file_range(in, from, fd, at, n, flags);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t sendfile(int fd, int in, off_t *from, size_t n)
{
    bool undo = ph_undo_before_write(fd, -1, n);
    ssize_t rc = ph_libc_next()->sendfile(fd, in, from, n);
    ph_undo_after(undo);
    return rc;
}

EXPORT ssize_t sendfile64(int fd, int in, off64_t *from, size_t n)
{
    return sendfile(fd, in, from, n);
}

/** Bytes may become zero, or all from there on move: then the file may become shorter. */
static bool before_fallocate(int fd, int mode, off_t at, off_t n)
{
    struct stat st;
    if (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE))
        return ph_undo_before_ftruncate(fd, at);
    return (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && at >= 0 && n > 0 &&
           fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink && at < st.st_size &&
           ph_undo_before_overwriting(fd, &st, (uint64_t)at, (uint64_t)at + (uint64_t)n);
}

EXPORT int fallocate(int fd, int mode, off_t at, off_t n)
{
    bool undo = before_fallocate(fd, mode, at, n);
    int rc = ph_libc_next()->fallocate(fd, mode, at, n);
    ph_undo_after(undo);
    return rc;
}

EXPORT int fallocate64(int fd, int mode, off64_t at, off64_t n)
{
    return fallocate(fd, mode, at, n);
}
