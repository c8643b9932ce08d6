/* SPDX-License-Identifier: MIT */
/*
 * calls.c - calls of libc's that change what an epoch asks for are counted; see calls.h
 *
 * Others are in undo_sure.c (fcntl), clock.c (timer_create), signals.c (sigaction) and moved.c.
 */
#include "calls.h"

#include "identity.h"
#include "libc_next.h"

#include <stdatomic.h>

#define EXPORT __attribute__((visibility("default")))

static struct {
    _Atomic uint64_t begun, ended;
} calls[PH_CALLS];

void ph_calls_begin(enum ph_calls kind)
{
    atomic_fetch_add(&calls[kind].begun, 1);
}

void ph_calls_end(enum ph_calls kind)
{
    atomic_fetch_add(&calls[kind].ended, 1);
}

uint64_t ph_calls_made(enum ph_calls kind)
{
    uint64_t begun = atomic_load(&calls[kind].begun);
    return begun == atomic_load(&calls[kind].ended) ? begun : UINT64_MAX;
}

#define COUNTED(kind, call)                                                                    \
    ph_calls_begin(kind);                                                                      \
    int rc = call;                                                                             \
    ph_calls_end(kind);                                                                        \
    return rc

EXPORT int flock(int fd, int operation)
{
    COUNTED(PH_CALLS_LOCKS, ph_libc_next()->flock(fd, operation));
}

EXPORT int lockf(int fd, int command, off_t length)
{
    COUNTED(PH_CALLS_LOCKS, ph_libc_next()->lockf(fd, command, length));
}

EXPORT int lockf64(int fd, int command, off64_t length)
{
    return lockf(fd, command, length);
}

EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    COUNTED(PH_CALLS_LIMITS, ph_libc_next()->setrlimit(resource, limit));
}

EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    COUNTED(PH_CALLS_LIMITS, ph_libc_next()->setrlimit64(resource, limit));
}

EXPORT int prlimit(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new,
                   struct rlimit *old)
{
    COUNTED(PH_CALLS_LIMITS,
            ph_libc_next()->prlimit(ph_identity_real(pid), resource, new, old));
}

EXPORT int prlimit64(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *new,
                     struct rlimit64 *old)
{
    COUNTED(PH_CALLS_LIMITS,
            ph_libc_next()->prlimit64(ph_identity_real(pid), resource, new, old));
}
