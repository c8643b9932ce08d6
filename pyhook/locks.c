/* SPDX-License-Identifier: MIT */
/* locks.c - libc's calls that take locks are counted; see locks.h. fcntl: undo_sure.c */
#include "locks.h"

#include "libc_next.h"

#include <stdatomic.h>

#define EXPORT __attribute__((visibility("default")))

static _Atomic uint64_t begun, ended;

void ph_locks_begin(void)
{
    atomic_fetch_add(&begun, 1);
}

void ph_locks_end(void)
{
    atomic_fetch_add(&ended, 1);
}

uint64_t ph_locks_calls(void)
{
    uint64_t calls = atomic_load(&begun);
    return calls == atomic_load(&ended) ? calls : UINT64_MAX;
}

EXPORT int flock(int fd, int operation)
{
    ph_locks_begin();
    int rc = ph_libc_next()->flock(fd, operation);
    ph_locks_end();
    return rc;
}

EXPORT int lockf(int fd, int command, off_t length)
{
    ph_locks_begin();
    int rc = ph_libc_next()->lockf(fd, command, length);
    ph_locks_end();
    return rc;
}

EXPORT int lockf64(int fd, int command, off64_t length)
{
    return lockf(fd, command, length);
}
