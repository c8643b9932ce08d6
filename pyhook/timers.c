/* SPDX-License-Identifier: MIT */
/*
 * timers.c - timers of timer_create(2), as the epoch finds them
 *
 * The kernel lists them in /proc/self/timers (proc_pid_timers(5)); where it does not, there is
 * no telling whether there are any. The timer of a thread's CPU time, of which the list does
 * not say which thread's, cannot come back.
 */
#include "agent_internal.h"
#include "allocator/syscall.h"
#include "calls.h"
#include "files.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define OWN_CPU (-6) /* the process's own: MAKE_PROCESS_CPUCLOCK(0, CPUCLOCK_SCHED) */

/** What follows @p key, in the text of one timer. */
static const char *value_of(const char *text, const char *key)
{
    const char *p = strstr(text, key);
    return p ? p + strlen(key) : "";
}

/** "signal: 34/0000000000001234", "notify: signal/tid.30206", "ClockID: 1". */
static void read_one(const char *text, struct ph_timer_pm *t)
{
    char *end;
    const char *notify = value_of(text, "notify: "), *tid = strstr(notify, "/tid.");
    t->id = (int32_t)strtol(text, NULL, 10);
    t->signal = (int32_t)strtol(value_of(text, "signal: "), &end, 10);
    t->value = *end == '/' ? strtoull(end + 1, NULL, 16) : 0;
    t->clock = (int32_t)strtol(value_of(text, "ClockID: "), NULL, 10);
    t->notify = strncmp(notify, "none", 4) == 0     ? SIGEV_NONE
                : strncmp(notify, "thread", 6) == 0 ? SIGEV_THREAD
                                                    : SIGEV_SIGNAL;
    if (tid && tid < strchr(notify, '\n'))
        t->tid = (uint32_t)strtoul(tid + 5, NULL, 10);
}

static uint64_t ns_of(struct timespec ts)
{
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/** Whether another timer of the table has the signal of @p t, too. */
static bool shares(const struct ph_timer_pm *t, const struct ph_timer_pm *all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (&all[i] != t && all[i].signal == t->signal)
            return true;
    return false;
}

/** Whether the signal of @p t waits for the threads to go on. */
static bool waits(const struct ph_timer_pm *t)
{
    const struct ph_area *area = &ph_agent.areas.threads;
    const struct ph_thread_pm *thread = (const void *)area->base;
    bool pending = false;
    for (size_t i = 0; i < area->used / sizeof *thread; i++)
        pending |= thread[i].pending >> (t->signal - 1) & 1;
    return pending;
}

/**
 * Timers with a signal that others have too, as the epoch before found them. Their signals do
 * not tell whose they are; glibc's calls of functions are such. So a thread that is parked
 * notes which of its timers are set, and then takes what waits for it and sends it to itself
 * again: what is set no more later on, and what waited, has not been delivered.
 */
static struct sharing {
    int32_t id;
    uint32_t tid; /* the thread that gets the signal; 0: the process */
    bool noted, was_set;
} shared[256];
static size_t nshared;

static struct {
    _Atomic bool in_use; /* by the first thread for which something waits */
    uint32_t n;
    siginfo_t info[256];
} waiting;

#define SIGTIMER 32 /* glibc's, to the thread that calls the functions of all timers */

static uint64_t left_of(int32_t id, uint64_t *interval)
{
    struct itimerspec left = {0};
    ph_syscall(SYS_timer_gettime, id, &left);
    if (interval)
        *interval = ns_of(left.it_interval);
    return ns_of(left.it_value);
}

static void note_set(uint32_t tid, bool any)
{
    for (size_t i = 0; i < nshared; i++)
        if (!shared[i].noted && (any || shared[i].tid == tid)) {
            shared[i].was_set = left_of(shared[i].id, NULL) != 0;
            shared[i].noted = true;
        }
}

void ph_timers_before(void)
{
    for (size_t i = 0; i < nshared; i++)
        shared[i].noted = false;
    waiting.n = 0;
    atomic_store(&waiting.in_use, false);
}

uint64_t ph_timers_parked(uint32_t tid)
{
    const uint64_t signals = UINT64_C(1) << (SIGTIMER - 1);
    const struct timespec none = {0};
    uint64_t pending = 0;
    note_set(tid, false);
    ph_syscall(SYS_rt_sigpending, &pending, 8);
    if (!(pending & signals) || atomic_exchange(&waiting.in_use, true))
        return pending;
    siginfo_t *info = waiting.info;
    while (waiting.n < sizeof waiting.info / sizeof waiting.info[0] &&
           ph_syscall(SYS_rt_sigtimedwait, &signals, &info[waiting.n], &none, 8) == SIGTIMER)
        waiting.n++;
    for (uint32_t i = 0; i < waiting.n; i++)
        ph_syscall(SYS_rt_tgsigqueueinfo, ph_syscall(SYS_getpid), tid, SIGTIMER, &info[i]);
    return pending;
}

void ph_timers_begin(void)
{
    note_set(0, true);
}

static bool has_expired(const struct ph_timer_pm *t)
{
    for (uint32_t i = 0; i < waiting.n; i++)
        if (waiting.info[i].si_code == SI_TIMER && waiting.info[i].si_timerid == t->id)
            return true;
    for (size_t i = 0; i < nshared; i++)
        if (shared[i].id == t->id)
            return shared[i].was_set && !t->value_ns;
    return false;
}

void ph_timers_note(void)
{
    static struct ph_asked none; /* there was none then */
    struct ph_area *text = &ph_agent.areas.text, *area = &ph_agent.areas.timers;
    if (ph_asked_holds(&none, PH_CALLS_TIMERS))
        return;
    text->used = 0;
    if (ph_read_file("/proc/self/timers", text) <= 0) {
        none = ph_asked_now(PH_CALLS_TIMERS);
        return;
    }
    none.ns = 0;
    for (const char *p = (const char *)text->base; (p = strstr(p, "ID: "));) {
        struct ph_timer_pm t = {0};
        p += strlen("ID: ");
        read_one(p, &t);
        p = value_of(p, "ClockID: ");
        if (t.clock == CLOCK_THREAD_CPUTIME_ID || (t.clock < 0 && t.clock != OWN_CPU)) {
            ph_files_cannot("a timer of a thread's CPU time", ": it will not expire");
            continue;
        }
        t.value_ns = left_of(t.id, &t.interval_ns);
        *(struct ph_timer_pm *)ph_area_push(area, sizeof t) = t;
    }
}

void ph_timers_expired(void)
{
    struct ph_area *area = &ph_agent.areas.timers;
    struct ph_timer_pm *t = (struct ph_timer_pm *)area->base;
    size_t n = area->used / sizeof *t, next = 0;
    for (size_t i = 0; i < n; i++)
        if (t[i].signal && (shares(&t[i], t, n) ? has_expired(&t[i]) : waits(&t[i])))
            t[i].value_ns = 1;
    for (size_t i = 0; i < n && next < sizeof shared / sizeof shared[0]; i++)
        if (t[i].signal && shares(&t[i], t, n))
            shared[next++] = (struct sharing){.id = t[i].id, .tid = t[i].tid};
    nshared = next;
}
