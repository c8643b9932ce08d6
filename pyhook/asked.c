/* SPDX-License-Identifier: MIT */
/*
 * asked.c - epochs without the program's doing
 *
 * The keeper asks, by the clock or because of a signal, through a word in the control page. A
 * thread of ours answers: it waits for the GIL like any other and takes the epoch when it has
 * it. That is between two bytecodes of whichever thread had it before, or while they all wait
 * or compute without it: every such moment is one in which a Python thread may call epoch().
 * Before that it copies what has changed, so that the pause is short (ahead.c).
 *
 * The thread exists only if the keeper may ask. It blocks all signals, so that none which the
 * program waits for ends up here. It is captured and comes back as any other; after a recovery
 * the control page is another one, and what was asked in the old one is not asked any more.
 */
#include "hook.h"

#include "agent_internal.h"
#include "signals.h"

#include <pthread.h>

static const char *const labels[] = {
    [PH_ASK_CLOCK] = "clock", [PH_ASK_SIGNAL] = "signal", [PH_ASK_FINAL] = "final"};

static bool running;

static void answer(struct ph_control *c, uint32_t asked)
{
    uint32_t why = atomic_load(&c->asked_why);
    uint64_t generation = c->generation;
    if (why != PH_ASK_FINAL) /* after that nobody minds how long the pause is */
        ph_ahead_run();
    uint64_t epoch = ph_module_take(why <= PH_ASK_FINAL ? labels[why] : NULL);
    if (c->generation != generation)
        return; /* this is a recovered program: nobody waits for the answer */
    atomic_store(&c->answer, epoch);
    atomic_store(&c->answered, asked);
}

static void *serve(void *arg)
{
    (void)arg;
    struct ph_control *c = PH_CONTROL;
    for (;;) {
        uint32_t asked = atomic_load(&c->asked);
        if (asked != atomic_load(&c->answered))
            answer(c, asked);
        else
            ph_futex_wait(&c->asked, asked, 10000);
    }
    return NULL;
}

void ph_asked_start(void)
{
    if (!ph_agent_active())
        return;
    ph_signals_withhold();
    if (running || !PH_CONTROL->asks)
        return;
    sigset_t all, old;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    running = pthread_create(&thread, NULL, serve, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (running)
        pthread_detach(thread);
    else
        ph_agent_say("no thread for the epochs that were asked for; take them with "
                     "pyheap.epoch()",
                     NULL);
}
