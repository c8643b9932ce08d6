/* SPDX-License-Identifier: MIT */
/*
 * pool_guard.c - libpmemobj on a full disk, and in a damaged pool
 *
 * libpmemobj changes its own metadata by stores through a mapping of the sparse file. A store
 * into a hole needs a block; when the file system has none left, the kernel sends SIGBUS. The
 * places are reserved at creation and free space is asked for before each allocation, so this
 * is the last resort, for space that vanishes in between. And it believes that metadata: what
 * is damaged makes it read or write anywhere, abort, or walk in a circle for ever. All of this
 * is turned into an error of the one call that was running.
 *
 * Invariant: the handler acts only for a thread inside ph_guard; for any other the action is as
 * it was before.
 */
#include "allocator/pool_internal.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Seconds of a processor. Opening takes some hundredths, whatever the size; but an emulated
 * processor is a hundred times slower, and a virtual one may be charged for what others took.
 */
#define PATIENCE 30

static const int guarded[] = {SIGBUS, SIGSEGV, SIGABRT, SIGVTALRM};
enum { GUARDED = sizeof guarded / sizeof guarded[0] };

static _Thread_local sigjmp_buf *active;
static struct sigaction before[GUARDED]; /* of the process, while anyone is inside */

static void on_signal(int sig, siginfo_t *info, void *context)
{
    if (active && (sig != SIGVTALRM || info->si_code == SI_TIMER))
        siglongjmp(*active, sig);
    for (int i = 0; i < GUARDED; i++) {
        const struct sigaction *a = &before[i];
        if (guarded[i] != sig || a->sa_handler == SIG_IGN)
            continue;
        if (a->sa_handler == SIG_DFL) {
            signal(sig, SIG_DFL); /* the fault happens again */
            if (info->si_code <= 0)
                raise(sig);
        } else if (a->sa_flags & SA_SIGINFO) {
            a->sa_sigaction(sig, info, context);
        } else {
            a->sa_handler(sig);
        }
    }
}

/** Let this thread have SIGVTALRM when it has computed for long. */
static bool start_timer(timer_t *timer)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGVTALRM};
    struct itimerspec limit = {.it_value.tv_sec = PATIENCE};

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, timer) != 0)
        return false;
    timer_settime(*timer, 0, &limit, NULL);
    return true;
}

static int error_of(struct ph_io *io, int sig)
{
    if (sig != SIGBUS)
        return PH_ECORRUPT;
    return ph_io_space(io, 16 * PH_PAGE) == PH_EFULL ? PH_EFULL : PH_EIO;
}

int ph_guard(struct ph_io *io, int (*fn)(void *arg), void *arg)
{
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_NODEFER | SA_ONSTACK | SA_SIGINFO};
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER; /* who saves the old actions */
    sigjmp_buf here;
    sigset_t set, mask;
    timer_t timer;
    bool timed;
    int sig;
    volatile int ret = PH_EIO;

    pthread_mutex_lock(&one);
    sigemptyset(&action.sa_mask);
    sigemptyset(&set);
    for (int i = 0; i < GUARDED; i++) {
        sigaction(guarded[i], &action, &before[i]);
        sigaddset(&set, guarded[i]);
    }
    pthread_sigmask(SIG_UNBLOCK, &set, &mask);
    timed = start_timer(&timer);
    sig = sigsetjmp(here, 1);
    if (sig == 0) {
        active = &here;
        ret = fn(arg);
    } else {
        ret = error_of(io, sig);
    }
    active = NULL;
    if (timed)
        timer_delete(timer);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    for (int i = 0; i < GUARDED; i++)
        sigaction(guarded[i], &before[i], NULL);
    pthread_mutex_unlock(&one);
    return ret;
}
