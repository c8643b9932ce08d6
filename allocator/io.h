/* SPDX-License-Identifier: MIT */
/*
 * io.h - every read, write and sync of the pool file
 *
 * All of the pool's own I/O goes through here, for two reasons: a test can make any call fail
 * and can record what was written and what was synced (hooks below), and the choice between
 * direct and buffered I/O is made in one place. libpmemobj's stores into its own metadata are
 * the only other way in which the file changes.
 *
 * Page data of large, aligned transfers goes with O_DIRECT where the file system takes it, so
 * that an epoch of many gigabytes does not push the program out of the page cache; the rest is
 * buffered. Both are coherent with each other and with libpmemobj's mapping of the file on the
 * local file systems of Linux, as long as a page is not written in both ways at once, which
 * nothing here does.
 */
#ifndef PH_IO_H
#define PH_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum ph_io_op {
    PH_IO_READ,
    PH_IO_WRITE,
    PH_IO_SYNC,
    PH_IO_RESERVE,
    PH_IO_TRUNCATE,
    PH_IO_DISCARD
};

/** Hooks for tests. Called from whatever thread does the I/O. Members may be NULL. */
struct ph_io_hooks {
    void *arg;
    /** Before the operation. @return an errno with which it is to fail, 0 to go on. */
    int (*before)(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size);
    /** Data is about to be written. */
    void (*write)(void *arg, uint64_t offset, const struct iovec *iov, int n);
    /** After a successful fdatasync. */
    void (*synced)(void *arg);
};

/** The hooks in force; NULL, as normally, for none. */
extern const struct ph_io_hooks *ph_io_hooks;

struct ph_io {
    int fd;        /* buffered; -1: not open */
    int direct_fd; /* the same file with O_DIRECT; -1: not available */
};

/** Add the direct descriptor to @p io, whose fd is open, if the file system has it. */
void ph_io_open_direct(struct ph_io *io);

/** Close both descriptors. */
void ph_io_close(struct ph_io *io);

/** Read exactly @p size bytes. @return 0, PH_EIO, PH_ETRUNC if the file ends before. */
int ph_io_read(struct ph_io *io, void *buf, size_t size, uint64_t offset);

/** Write all of @p iov (changed by the call). @return 0, PH_EFULL, PH_EIO; errno tells more. */
int ph_io_writev(struct ph_io *io, struct iovec *iov, int n, uint64_t offset);

/** Write exactly @p size bytes. @return as ph_io_writev. */
int ph_io_write(struct ph_io *io, const void *buf, size_t size, uint64_t offset);

/** Make everything written durable (fdatasync). @return 0, PH_EIO. */
int ph_io_sync(struct ph_io *io);

/** Allocate blocks for a range without changing the file's size; a file system that cannot is
 * no error. @return 0, PH_EFULL, PH_EIO. */
int ph_io_reserve(struct ph_io *io, uint64_t offset, uint64_t size);

/** Give blocks back to the file system; the range reads as zeros, or, where the file system
 * cannot do that, as before. */
void ph_io_discard(struct ph_io *io, uint64_t offset, uint64_t size);

/** A range that has been written and synced will not be read soon: the page cache need not keep
 * it. */
void ph_io_forget(struct ph_io *io, uint64_t offset, uint64_t size);

/** Set the file's size. @return 0, PH_EPOOLSIZE if the file system has no such sizes, PH_EFULL,
 * PH_EIO. */
int ph_io_truncate(struct ph_io *io, uint64_t size);

/** Whether at least @p size bytes are free on the file system. @return 0, PH_EFULL, PH_EIO. */
int ph_io_space(struct ph_io *io, uint64_t size);

#endif
