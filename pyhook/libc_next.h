/* SPDX-License-Identifier: MIT */
/*
 * libc_next.h - libc's functions behind those that this library stands before
 *
 * Found all at once, when the first is needed, which is before the program starts: a child made
 * by vfork, or a signal handler, must not be the one to search.
 */
#ifndef PH_LIBC_NEXT_H
#define PH_LIBC_NEXT_H

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PH_LIBC_FUNCTIONS(X)                                                                   \
    X(sigaction)                                                                               \
    X(kill)                                                                                    \
    X(setlocale)                                                                               \
    X(killpg)                                                                                  \
    X(tgkill)                                                                                  \
    X(pthread_kill)                                                                            \
    X(pthread_sigqueue)                                                                        \
    X(sigqueue)                                                                                \
    X(sigwaitinfo)                                                                             \
    X(sigtimedwait)                                                                            \
    X(getpgid)                                                                                 \
    X(setpgid)                                                                                 \
    X(getsid)                                                                                  \
    X(setsid)                                                                                  \
    X(posix_spawnattr_setpgroup)                                                               \
    X(tcgetpgrp)                                                                               \
    X(tcsetpgrp)                                                                               \
    X(tcgetsid)                                                                                \
    X(waitpid)                                                                                 \
    X(wait4)                                                                                   \
    X(waitid)                                                                                  \
    X(sched_getaffinity)                                                                       \
    X(sched_setaffinity)                                                                       \
    X(sched_getscheduler)                                                                      \
    X(sched_setscheduler)                                                                      \
    X(sched_getparam)                                                                          \
    X(sched_setparam)                                                                          \
    X(sched_rr_get_interval)                                                                   \
    X(getpriority)                                                                             \
    X(setpriority)                                                                             \
    X(prlimit)                                                                                 \
    X(prlimit64)                                                                               \
    X(setrlimit)                                                                               \
    X(setrlimit64)                                                                             \
    X(open)                                                                                    \
    X(open64)                                                                                  \
    X(openat)                                                                                  \
    X(openat64)                                                                                \
    X(fopen)                                                                                   \
    X(fopen64)                                                                                 \
    X(freopen)                                                                                 \
    X(lseek)                                                                                   \
    X(dup)                                                                                     \
    X(dup2)                                                                                    \
    X(dup3)                                                                                    \
    X(fcntl)                                                                                   \
    X(flock)                                                                                   \
    X(lockf)                                                                                   \
    X(recvmsg)                                                                                 \
    X(recvmmsg)                                                                                \
    X(unlinkat)                                                                                \
    X(remove)                                                                                  \
    X(renameat)                                                                                \
    X(renameat2)                                                                               \
    X(mkdirat)                                                                                 \
    X(symlinkat)                                                                               \
    X(linkat)                                                                                  \
    X(mkfifoat)                                                                                \
    X(mknodat)                                                                                 \
    X(bind)                                                                                    \
    X(write)                                                                                   \
    X(pwrite)                                                                                  \
    X(writev)                                                                                  \
    X(pwritev)                                                                                 \
    X(pwritev2)                                                                                \
    X(copy_file_range)                                                                         \
    X(sendfile)                                                                                \
    X(fallocate)                                                                               \
    X(ftruncate)                                                                               \
    X(truncate)                                                                                \
    X(opendir)                                                                                 \
    X(access)                                                                                  \
    X(faccessat)                                                                               \
    X(stat)                                                                                    \
    X(stat64)                                                                                  \
    X(lstat)                                                                                   \
    X(lstat64)                                                                                 \
    X(fstatat)                                                                                 \
    X(fstatat64)                                                                               \
    X(readlink)                                                                                \
    X(readlinkat)                                                                              \
    X(getrusage)                                                                               \
    X(times)                                                                                   \
    X(clock_gettime)                                                                           \
    X(clock_nanosleep)                                                                         \
    X(shm_open)                                                                                \
    X(sem_open)                                                                                \
    X(sem_unlink)                                                                              \
    X(shm_unlink)                                                                              \
    X(timer_create)                                                                            \
    X(timer_delete)                                                                            \
    X(timer_settime)                                                                           \
    X(timerfd_settime)                                                                         \
    X(sem_clockwait)                                                                           \
    X(pthread_cond_timedwait)                                                                  \
    X(pthread_cond_clockwait)                                                                  \
    X(pthread_mutex_clocklock)                                                                 \
    X(pthread_rwlock_clockrdlock)                                                              \
    X(pthread_rwlock_clockwrlock)                                                              \
    X(pthread_clockjoin_np)

struct ph_libc {
#define X(name) __typeof__(&name) name;
    PH_LIBC_FUNCTIONS(X)
#undef X
};

/** libc's own. A function that this libc lacks is NULL; nobody can have called it. */
const struct ph_libc *ph_libc_next(void);

#endif
