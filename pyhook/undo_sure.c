/* SPDX-License-Identifier: MIT */
/*
 * undo_sure.c - descriptors by which a write overwrites nothing that the newest epoch needs
 *
 * To find out takes two system calls, as long as a short write itself.
 *
 *   Y1  A descriptor is sure for one epoch and one turn, if it is found there to be of no
 *       regular file, to append, or to stand at the end of its file.
 *   Y2  It stays so: writing and reading move on, and of a file that is known an epoch needs
 *       less and less (undo.c). Only another description under its number, a step back or
 *       other flags could change it. Every call of libc's that can do one of these begins a
 *       new turn for all descriptors, when it is done, so before anybody knows of it.
 *
 * Not seen, as elsewhere: system calls made by hand, other processes that share the description
 * and step back, and libc itself, when a stream steps back whose descriptor is written to by
 * write(2).
 */
#include "calls.h"
#include "libc_next.h"
#include "undo.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define EXPORT __attribute__((visibility("default")))
#define MOST   1024

static _Atomic uint64_t turn = 1;
static _Atomic uint64_t sure[MOST]; /* by descriptor: ph_undo_turn() of then */

uint64_t ph_undo_turn(void)
{
    return atomic_load(&turn) << 20 | (ph_undo_newest() & 0xfffff);
}

void ph_undo_new_turn(void)
{
    atomic_fetch_add(&turn, 1);
}

bool ph_undo_is_sure(int fd)
{
    return fd >= 0 && fd < MOST &&
           atomic_load_explicit(&sure[fd], memory_order_relaxed) == ph_undo_turn();
}

void ph_undo_make_sure(int fd, uint64_t since)
{
    if (fd >= 0 && fd < MOST)
        atomic_store_explicit(&sure[fd], since, memory_order_relaxed);
}

/* ---- calls that begin a turn; those that open: identity_paths.c ------------------------- */

/** What a call has returned that may have given or moved a descriptor. */
static long given(long result)
{
    ph_undo_new_turn();
    return result;
}

EXPORT off_t lseek(int fd, off_t offset, int whence)
{
    off_t at = ph_libc_next()->lseek(fd, offset, whence);
    if ((whence != SEEK_CUR && whence != SEEK_END) || offset < 0)
        ph_undo_new_turn();
    return at;
}

EXPORT off64_t lseek64(int fd, off64_t offset, int whence)
{
    return lseek(fd, offset, whence);
}

EXPORT int dup(int fd)
{
    return (int)given(ph_libc_next()->dup(fd));
}

EXPORT int dup2(int from, int to)
{
    return (int)given(ph_libc_next()->dup2(from, to));
}

EXPORT int dup3(int from, int to, int flags)
{
    return (int)given(ph_libc_next()->dup3(from, to, flags));
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    return given(ph_libc_next()->recvmsg(fd, m, flags));
}

EXPORT int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *timeout)
{
    return (int)given(ph_libc_next()->recvmmsg(fd, m, n, flags, timeout));
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *file)
{
    FILE *again = ph_libc_next()->freopen(path, mode, file);
    ph_undo_new_turn();
    return again;
}

EXPORT FILE *freopen64(const char *path, const char *mode, FILE *file)
{
    return freopen(path, mode, file);
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list ap;
    va_start(ap, command);
    long argument = va_arg(ap, long); /* or a pointer, or nothing */
    va_end(ap);
    bool locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK ||
                 command == F_OFD_SETLKW || command == F_SETLEASE;
    if (locks)
        ph_calls_begin(PH_CALLS_LOCKS);
    int result = ph_libc_next()->fcntl(fd, command, argument);
    if (locks)
        ph_calls_end(PH_CALLS_LOCKS);
    if (command == F_SETFL || command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        ph_undo_new_turn();
    return result;
}

EXPORT int fcntl64(int fd, int command, ...)
{
    va_list ap;
    va_start(ap, command);
    long argument = va_arg(ap, long);
    va_end(ap);
    return fcntl(fd, command, argument);
}
