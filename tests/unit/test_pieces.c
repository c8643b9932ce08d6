/* SPDX-License-Identifier: MIT */
/* Work that a parked thread shares: W1 and W2 of pyhook/pieces.c. */
#include "pyhook/agent_internal.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

#define TURNS  3000
#define PIECES 37

static _Atomic uint32_t turn,
    helped;               /* the turn that is under way; that the helper is done with */
static atomic_bool open_; /* pieces may be taken */
static atomic_int done[PIECES];
static _Atomic uint32_t too_late;

uint32_t ph_park_turn(void)
{
    return atomic_load(&turn);
}

unsigned ph_park_processor(void)
{
    unsigned processor = 0;
    getcpu(&processor, NULL); /* the helper's: it goes to another one each time */
    return processor;
}

static void piece(uint32_t number)
{
    atomic_fetch_add(&done[number], 1);
    if (!atomic_load(&open_))
        atomic_fetch_add(&too_late, 1);
}

static void *helper(void *unused)
{
    (void)unused;
    for (uint32_t last = 0; last < TURNS;) {
        uint32_t now = atomic_load(&turn);
        if (now == last) {
            sched_yield();
            continue;
        }
        ph_pieces_help(now);
        atomic_store(&helped, last = now);
    }
    return NULL;
}

Test(pieces, each_is_done_once_and_before_the_end)
{
    pthread_t thread;
    cr_assert(pthread_create(&thread, NULL, helper, NULL) == 0);
    for (uint32_t t = 1; t <= TURNS; t++) {
        for (unsigned i = 0; i < PIECES; i++)
            atomic_store(&done[i], 0);
        atomic_store(&turn, t);
        atomic_store(&open_, true);
        ph_pieces_do(PIECES, piece);
        atomic_store(&open_, false);
        for (unsigned i = 0; i < PIECES; i++)
            cr_assert(atomic_load(&done[i]) == 1, "turn %u: piece %u done %d times", t, i,
                      atomic_load(&done[i]));
        while (atomic_load(&helped) != t)
            sched_yield(); /* parked threads leave a turn before the next one */
    }
    pthread_join(thread, NULL);
    cr_assert(atomic_load(&too_late) == 0, "%u pieces after the end",
              (unsigned)atomic_load(&too_late));
}

Test(pieces, without_help_all_are_done)
{
    atomic_store(&turn, 1);
    atomic_store(&open_, true);
    ph_pieces_do(PIECES, piece);
    ph_pieces_help(1); /* too late */
    ph_pieces_help(2); /* too early, and in vain */
    for (unsigned i = 0; i < PIECES; i++)
        cr_assert(atomic_load(&done[i]) == 1, "piece %u done %d times", i,
                  atomic_load(&done[i]));
}
