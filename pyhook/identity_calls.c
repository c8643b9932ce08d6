/* SPDX-License-Identifier: MIT */
/*
 * identity_calls.c - libc's calls that take or give a pid, a thread, a group or a session
 *
 * Each translates what it is given and what it gives back, see identity.h. Children that are
 * waited for have real numbers only; those that did not come back are in children.h.
 */
#include "identity.h"

#include "agent.h"
#include "allocator/syscall.h"
#include "children.h"
#include "hook.h"
#include "libc_next.h"
#include "signals.h"

#include <errno.h>
#include <stdint.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))

static long result(long r)
{
    if (r >= 0)
        return r;
    errno = (int)-r;
    return -1;
}

/* ---- who am I ------------------------------------------------------------------------- */

EXPORT pid_t getpid(void)
{
    return ph_identity_is_program()
               ? ph_reseed_pid(__builtin_return_address(0), (pid_t)ph_agent_first_pid())
               : (pid_t)ph_syscall(SYS_getpid);
}

EXPORT pid_t gettid(void)
{
    pid_t real = (pid_t)ph_syscall(SYS_gettid);
    return ph_identity_is_program() ? ph_thread_shown(real) : real;
}

EXPORT pid_t getppid(void)
{
    return ph_identity_shown((pid_t)ph_syscall(SYS_getppid));
}

/* ---- groups, sessions, terminals ----------------------------------------------------------
 */

EXPORT pid_t getpgid(pid_t pid)
{
    return ph_identity_shown_group(ph_libc_next()->getpgid(ph_identity_real(pid)));
}

EXPORT pid_t getpgrp(void)
{
    return getpgid(0);
}

EXPORT int setpgid(pid_t pid, pid_t group)
{
    return ph_libc_next()->setpgid(ph_identity_real(pid), ph_identity_real_group(group));
}

/* What posix_spawn does with it, it does inside libc. */
EXPORT int posix_spawnattr_setpgroup(posix_spawnattr_t *attributes, pid_t group)
{
    return ph_libc_next()->posix_spawnattr_setpgroup(attributes, ph_identity_real_group(group));
}

EXPORT pid_t getsid(pid_t pid)
{
    return ph_identity_shown_session(ph_libc_next()->getsid(ph_identity_real(pid)));
}

EXPORT pid_t setsid(void)
{
    return ph_identity_shown_session(ph_libc_next()->setsid());
}

EXPORT pid_t tcgetpgrp(int fd)
{
    return ph_identity_shown_group(ph_libc_next()->tcgetpgrp(fd));
}

EXPORT int tcsetpgrp(int fd, pid_t group)
{
    return ph_libc_next()->tcsetpgrp(fd, ph_identity_real_group(group));
}

EXPORT pid_t tcgetsid(int fd)
{
    return ph_identity_shown_session(ph_libc_next()->tcgetsid(fd));
}

/* ---- signals and waiting ------------------------------------------------------------------
 */

EXPORT int kill(pid_t pid, int sig)
{
    int status;
    if (pid > 0 && ph_children_lost(pid, &status, true))
        return 0; /* it has ended, and by now the number may be a stranger's */
    return ph_libc_next()->kill(ph_identity_real_target(pid), sig);
}

EXPORT int killpg(pid_t group, int sig)
{
    return ph_libc_next()->killpg(ph_identity_real_group(group), sig);
}

EXPORT int tgkill(pid_t pid, pid_t thread, int sig)
{
    ph_signals_directed();
    int r = ph_libc_next()->tgkill(ph_identity_real(pid), ph_identity_real(thread), sig);
    ph_signals_directed();
    return r;
}

EXPORT int pthread_kill(pthread_t thread, int sig)
{
    ph_signals_directed();
    int r = ph_libc_next()->pthread_kill(thread, sig);
    ph_signals_directed();
    return r;
}

EXPORT int pthread_sigqueue(pthread_t thread, int sig, const union sigval value)
{
    ph_signals_directed();
    int r = ph_libc_next()->pthread_sigqueue(thread, sig, value);
    ph_signals_directed();
    return r;
}

EXPORT int sigqueue(pid_t pid, int sig, const union sigval value)
{
    return ph_libc_next()->sigqueue(ph_identity_real(pid), sig, value);
}

static void show_sender(siginfo_t *info)
{
    if (info &&
        (info->si_code == SI_USER || info->si_code == SI_QUEUE || info->si_code == SI_TKILL))
        info->si_pid = ph_identity_shown(info->si_pid);
}

EXPORT int sigwaitinfo(const sigset_t *set, siginfo_t *info)
{
    int sig = ph_libc_next()->sigwaitinfo(set, info);
    if (sig > 0)
        show_sender(info);
    return sig;
}

EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
    int sig = ph_libc_next()->sigtimedwait(set, info, timeout);
    if (sig > 0)
        show_sender(info);
    return sig;
}

/** Of a group only libc knows; any child (-1) or one. */
static bool may_be_lost(pid_t pid)
{
    return pid > 0 || pid == -1;
}

/**
 * What to do about waiting for @p pid: lost children first, if any will do, since they have
 * ended; but a child that there is before a lost one that had the same number.
 */
static pid_t wait_lost(pid_t pid, int *status, bool waited)
{
    int lost_status;
    if (!may_be_lost(pid) || waited != (pid != -1))
        return 0;
    pid_t lost = ph_children_lost(pid, &lost_status, false);
    if (lost && status)
        *status = lost_status;
    return lost;
}

EXPORT pid_t waitpid(pid_t pid, int *status, int options)
{
    pid_t lost = wait_lost(pid, status, false);
    pid_t got =
        lost ? lost : ph_libc_next()->waitpid(ph_identity_real_child(pid), status, options);
    if (got < 0 && errno == ECHILD && (lost = wait_lost(pid, status, true)))
        return lost;
    return got;
}

EXPORT pid_t wait(int *status)
{
    return waitpid(-1, status, 0);
}

EXPORT pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    pid_t lost = wait_lost(pid, status, false), got = lost;
    if (!lost)
        got = ph_libc_next()->wait4(ph_identity_real_child(pid), status, options, usage);
    if (got < 0 && errno == ECHILD && (lost = wait_lost(pid, status, true)))
        got = lost;
    if (lost && usage)
        *usage = (struct rusage){0};
    return got;
}

static bool lost_info(idtype_t type, id_t id, siginfo_t *info, int options)
{
    int status;
    pid_t lost = options & WEXITED ? ph_children_lost(type == P_ALL ? -1 : (pid_t)id, &status,
                                                      options & WNOWAIT)
                                   : 0;
    if (lost && info) {
        *info = (siginfo_t){.si_signo = SIGCHLD};
        info->si_pid = lost;
        info->si_code = WIFEXITED(status) ? CLD_EXITED : CLD_KILLED;
        info->si_status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    }
    return lost;
}

EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    if (type == P_PGID)
        id = (id_t)ph_identity_real_group((pid_t)id);
    if (type == P_ALL && lost_info(type, id, info, options))
        return 0;
    int rc = ph_libc_next()->waitid(type, id, info, options);
    if (rc < 0 && errno == ECHILD && type == P_PID && lost_info(type, id, info, options))
        return 0;
    return rc;
}

/* ---- scheduling and limits ----------------------------------------------------------------
 */

EXPORT int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
    return ph_libc_next()->sched_getaffinity(ph_identity_real(pid), size, set);
}

EXPORT int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *set)
{
    return ph_libc_next()->sched_setaffinity(ph_identity_real(pid), size, set);
}

EXPORT int sched_getscheduler(pid_t pid)
{
    return ph_libc_next()->sched_getscheduler(ph_identity_real(pid));
}

EXPORT int sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
{
    return ph_libc_next()->sched_setscheduler(ph_identity_real(pid), policy, param);
}

EXPORT int sched_getparam(pid_t pid, struct sched_param *param)
{
    return ph_libc_next()->sched_getparam(ph_identity_real(pid), param);
}

EXPORT int sched_setparam(pid_t pid, const struct sched_param *param)
{
    return ph_libc_next()->sched_setparam(ph_identity_real(pid), param);
}

EXPORT int sched_rr_get_interval(pid_t pid, struct timespec *interval)
{
    return ph_libc_next()->sched_rr_get_interval(ph_identity_real(pid), interval);
}

EXPORT int getpriority(__priority_which_t which, id_t who)
{
    return ph_libc_next()->getpriority(which, ph_identity_real_who((int)which, who));
}

EXPORT int setpriority(__priority_which_t which, id_t who, int value)
{
    return ph_libc_next()->setpriority(which, ph_identity_real_who((int)which, who), value);
}

/* ---- other processes' insides --------------------------------------------------------------
 */

int pidfd_open(pid_t pid, unsigned flags); /* sys/pidfd.h of glibc 2.36 */
EXPORT int pidfd_open(pid_t pid, unsigned flags)
{
    return (int)result(ph_syscall(SYS_pidfd_open, ph_identity_real(pid), flags));
}

EXPORT ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long nlocal,
                                const struct iovec *remote, unsigned long nremote,
                                unsigned long flags)
{
    return result(ph_syscall(SYS_process_vm_readv, ph_identity_real(pid), local, nlocal, remote,
                             nremote, flags));
}

EXPORT ssize_t process_vm_writev(pid_t pid, const struct iovec *local, unsigned long nlocal,
                                 const struct iovec *remote, unsigned long nremote,
                                 unsigned long flags)
{
    return result(ph_syscall(SYS_process_vm_writev, ph_identity_real(pid), local, nlocal,
                             remote, nremote, flags));
}
