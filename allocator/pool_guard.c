/* SPDX-License-Identifier: MIT */
/*
 * pool_guard.c - libpmemobj on a full disk
 *
 * libpmemobj changes its own metadata by stores through a mapping of the sparse file. A store
 * into a hole needs a block; when the file system has none left, the kernel sends SIGBUS. The
 * places are reserved at creation and free space is asked for before each allocation, so this
 * is the last resort, for space that vanishes in between: the signal is turned into an error
 * of the one call that was running.
 *
 * Invariant: the handler acts only for a thread inside ph_guard; for any other the action is as
 * it was before.
 */
#include "allocator/pool_internal.h"

#include <setjmp.h>
#include <signal.h>

static _Thread_local sigjmp_buf *active;
static struct sigaction before; /* of the process, while anyone is inside */

static void on_sigbus(int sig)
{
    if (active)
        siglongjmp(*active, 1);
    if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(sig);
    signal(sig, SIG_DFL); /* the fault happens again */
}

int ph_guard(struct ph_io *io, int (*fn)(void *arg), void *arg)
{
    struct sigaction action = {.sa_handler = on_sigbus, .sa_flags = SA_NODEFER | SA_ONSTACK};
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER; /* who saves the old action */
    sigjmp_buf here;
    volatile int ret = PH_EIO;

    pthread_mutex_lock(&one);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
    if (sigsetjmp(here, 1) == 0) {
        active = &here;
        ret = fn(arg);
    } else {
        ret = ph_io_space(io, 16 * PH_PAGE) == PH_EFULL ? PH_EFULL : PH_EIO;
    }
    active = NULL;
    sigaction(SIGBUS, &before, NULL);
    pthread_mutex_unlock(&one);
    return ret;
}
