/* SPDX-License-Identifier: MIT */
/*
 * keeper_check.h - a program that runs while what it runs on is still being verified
 *
 * A large program is recovered by mapping its heap from the pool, so it starts before all of
 * its pages have been held against their checksums. That is done meanwhile, by a thread of the
 * keeper's.
 *
 * Invariants
 *  V1  No epoch of the program gets into the pool before all is verified.
 *  V2  Until the program's first epoch begins, when it has ordinary memory again, nothing in
 *      the pool changes that its memory is mapped from: the view is held (pool_view.c).
 *  V3  Damage ends the program, whatever it does; and if it has ended by itself meanwhile, in a
 *      way that damage may explain, the rest is verified before anything is said.
 */
#ifndef PH_KEEPER_CHECK_H
#define PH_KEEPER_CHECK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct ph_check {
    /* Set by whoever wants the check; run NULL: there is none. */
    /** Verify, until *stop. @return 0, PH_EINTR when stopped, or a code, with @p detail. */
    int (*run)(void *arg, const _Atomic bool *stop, char *detail, size_t size);
    /** Called once, when neither the check nor the program needs the view any more. */
    void (*release)(void *arg);
    void *arg;

    pthread_t thread;
    bool started, threaded;
    int pidfd; /* of the program; -1: unknown */
    _Atomic bool stop;
    int result;
    char detail[256];
};

/** Start the check of the program @p child. */
void ph_check_start(struct ph_check *check, int child);

/** Nobody needs to know any more. May be called by any thread. */
void ph_check_stop(struct ph_check *check);

/**
 * Wait for the check's end; before the first epoch, and when the program has ended.
 * @return 0; PH_EINTR: it was stopped, nobody knows; or why the program is not to be trusted,
 * which has been killed then.
 */
int ph_check_end(struct ph_check *check);

#endif
