/* SPDX-License-Identifier: MIT */
/*
 * io.c - every read, write and sync of the pool file
 *
 * See io.h. Errors are told apart only as far as the caller acts differently: no space, and
 * the rest.
 */
#include "allocator/io.h"
#include "allocator/error.h"
#include "allocator/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Below this a direct write's round trip to the device costs more than the copy it saves. */
#define DIRECT_MIN (16 * PH_PAGE)

const struct ph_io_hooks *ph_io_hooks;

static int error_of(int err)
{
    switch (err) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* RLIMIT_FSIZE; the size itself was set long before */
        return PH_EFULL;
    default:
        return PH_EIO;
    }
}

static int injected(enum ph_io_op op, uint64_t offset, uint64_t size)
{
    const struct ph_io_hooks *h = ph_io_hooks;
    int err = h && h->before ? h->before(h->arg, op, offset, size) : 0;

    if (err) {
        errno = err;
        return error_of(err);
    }
    return 0;
}

static bool page_aligned(uint64_t v)
{
    return v % PH_PAGE == 0;
}

void ph_io_open_direct(struct ph_io *io)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", io->fd);
    io->direct_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
}

void ph_io_close(struct ph_io *io)
{
    if (io->fd >= 0)
        close(io->fd);
    if (io->direct_fd >= 0)
        close(io->direct_fd);
    io->fd = io->direct_fd = -1;
}

int ph_io_read(struct ph_io *io, void *buf, size_t size, uint64_t offset)
{
    bool direct = io->direct_fd >= 0 && size >= DIRECT_MIN && page_aligned((uintptr_t)buf) &&
                  page_aligned(size) && page_aligned(offset);
    int err = injected(PH_IO_READ, offset, size);

    if (err)
        return err;
    while (size) {
        ssize_t got = pread(direct ? io->direct_fd : io->fd, buf, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && direct && errno == EINVAL) {
            direct = false;
            continue;
        }
        if (got < 0)
            return PH_EIO;
        if (got == 0)
            return PH_ETRUNC;
        buf = (char *)buf + got;
        size -= (size_t)got;
        offset += (uint64_t)got;
        direct = direct && page_aligned(offset);
    }
    return 0;
}

/* Drop the first @p done bytes from the vector. */
static void advance(struct iovec **iov, int *n, size_t done)
{
    while (*n && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*n)--;
    }
    if (done) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

int ph_io_writev(struct ph_io *io, struct iovec *iov, int n, uint64_t offset)
{
    bool direct = io->direct_fd >= 0 && page_aligned(offset);
    const struct ph_io_hooks *h = ph_io_hooks;
    uint64_t size = 0;
    int err;

    for (int i = 0; i < n; i++) {
        direct =
            direct && page_aligned((uintptr_t)iov[i].iov_base) && page_aligned(iov[i].iov_len);
        size += iov[i].iov_len;
    }
    direct = direct && size >= DIRECT_MIN;
    err = injected(PH_IO_WRITE, offset, size);
    if (err)
        return err;
    if (h && h->write)
        h->write(h->arg, offset, iov, n);
    while (n) {
        ssize_t put = pwritev(direct ? io->direct_fd : io->fd, iov, n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && direct && errno == EINVAL) { /* some sizes are refused: go buffered */
            direct = false;
            continue;
        }
        if (put < 0)
            return error_of(errno);
        offset += (uint64_t)put;
        direct = direct && page_aligned(offset);
        advance(&iov, &n, (size_t)put);
    }
    return 0;
}

int ph_io_write(struct ph_io *io, const void *buf, size_t size, uint64_t offset)
{
    struct iovec iov = {(void *)(uintptr_t)buf, size};

    return ph_io_writev(io, &iov, 1, offset);
}

int ph_io_sync(struct ph_io *io)
{
    const struct ph_io_hooks *h = ph_io_hooks;
    int err = injected(PH_IO_SYNC, 0, 0);

    if (err)
        return PH_EIO;
    while (fdatasync(io->fd))
        if (errno != EINTR)
            return PH_EIO;
    if (h && h->synced)
        h->synced(h->arg);
    return 0;
}

int ph_io_reserve(struct ph_io *io, uint64_t offset, uint64_t size)
{
    int err = injected(PH_IO_RESERVE, offset, size);

    if (err)
        return err;
    while (fallocate(io->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size)) {
        if (errno == EOPNOTSUPP)
            return 0;
        if (errno != EINTR)
            return error_of(errno);
    }
    return 0;
}

void ph_io_discard(struct ph_io *io, uint64_t offset, uint64_t size)
{
    if (injected(PH_IO_DISCARD, offset, size) == 0)
        fallocate(io->fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, (off_t)offset,
                  (off_t)size);
}

void ph_io_forget(struct ph_io *io, uint64_t offset, uint64_t size)
{
    posix_fadvise(io->fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
}

int ph_io_truncate(struct ph_io *io, uint64_t size)
{
    int err = injected(PH_IO_TRUNCATE, 0, size);

    if (err)
        return err;
    if (ftruncate(io->fd, (off_t)size) == 0)
        return 0;
    return errno == EFBIG || errno == EINVAL ? PH_EPOOLSIZE : error_of(errno);
}

int ph_io_space(struct ph_io *io, uint64_t size)
{
    struct statvfs st;
    int err = injected(PH_IO_RESERVE, 0, size);

    if (err)
        return err;
    if (fstatvfs(io->fd, &st))
        return PH_EIO;
    if ((uint64_t)st.f_bavail * st.f_frsize >= size)
        return 0;
    errno = ENOSPC;
    return PH_EFULL;
}
