/* SPDX-License-Identifier: MIT */
/* keeper_check.c - verifying while the program runs; see keeper_check.h */
#include "keeper_check.h"

#include "error.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *check(void *arg)
{
    struct ph_check *c = arg;
    c->result = c->run(c->arg, &c->stop, c->detail, sizeof c->detail);
    if (c->result && c->result != PH_EINTR && c->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
    return NULL;
}

void ph_check_start(struct ph_check *c, int child)
{
    if (!c->run)
        return;
    c->started = true;
    c->pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    c->threaded = pthread_create(&c->thread, NULL, check, c) == 0;
    if (!c->threaded)
        check(c); /* late, but not too late: no epoch has been taken out of the ring */
}

void ph_check_stop(struct ph_check *c)
{
    atomic_store(&c->stop, true);
}

int ph_check_end(struct ph_check *c)
{
    if (!c->started)
        return c->result;
    if (c->threaded)
        pthread_join(c->thread, NULL);
    c->started = false;
    if (c->pidfd >= 0)
        close(c->pidfd);
    c->release(c->arg);
    return c->result;
}
