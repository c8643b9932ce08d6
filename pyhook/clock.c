/* SPDX-License-Identifier: MIT */
/*
 * clock.c - to the program no time passes between its death and its recovery
 *
 * Its monotonic clocks and its CPU time go on from the epoch: a deadline that was 20 s away is
 * 20 s away, and differences are never negative, on another machine or after a reboot too. A
 * time namespace would do the same for monotonic clocks, but needs rights, which an ordinary
 * user has at most in a user namespace, with other side effects. So libc's calls that tell or
 * take such a time are interposed; children that are forked see the same clocks, what is
 * executed sees the kernel's.
 *
 *   C1  shown = the kernel's + offset. Offsets change only in the restorer, while no thread of
 *       the program runs, and are 0 until then.
 *   C2  A moment that a call of libc or the kernel is given lies in the thread's own
 *       `ph_clock_thread` as long as the call lasts: the restorer computes it anew, for a call
 *       that is under way, or about to be.
 *   C3  Moments of CLOCK_REALTIME, and durations, are passed on as they are.
 */
#include "clock.h"

#include "agent.h"
#include "allocator/syscall.h"
#include "calls.h"
#include "hook.h"
#include "libc_next.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define NS     INT64_C(1000000000)

static struct ph_clock_offsets offsets;
static __thread struct ph_clock_thread mine;

static const struct {
    clockid_t id;
    int index;
} shifted[] = {
#define X(index, id) {id, index},
    PH_CLOCK_LIST(X)
#undef X
        {CLOCK_MONOTONIC_COARSE, PH_CLOCK_MONOTONIC},
    {CLOCK_BOOTTIME_ALARM, PH_CLOCK_BOOT},
};

/** -1: a clock that is passed on as it is. */
static int index_of(clockid_t id)
{
    if (id == CLOCK_MONOTONIC)
        return PH_CLOCK_MONOTONIC;
    if (id == CLOCK_REALTIME)
        return -1;
    for (size_t i = 0; i < sizeof shifted / sizeof shifted[0]; i++)
        if (shifted[i].id == id)
            return shifted[i].index;
    return -1;
}

static int64_t offset_of(int index)
{
    return *(volatile int64_t *)&offsets.ns[index];
}

/* ---- what an epoch notes ------------------------------------------------------------------
 */

int ph_clock_kernel(clockid_t id, struct timespec *ts)
{
    return ph_libc_next()->clock_gettime(id, ts);
}

static uint64_t kernel_ns(clockid_t id)
{
    struct timespec ts = {0};
    ph_clock_kernel(id, &ts);
    return (uint64_t)ts.tv_sec * (uint64_t)NS + (uint64_t)ts.tv_nsec;
}

void ph_clock_note(struct ph_record_pm *record, struct ph_thread_pm *thread, size_t n)
{
    for (size_t i = 0; i < PH_CLOCKS; i++)
        record->clock_ns[i] = kernel_ns(shifted[i].id) + (uint64_t)offset_of(shifted[i].index);
    record->clock_offsets = (uint64_t)(uintptr_t)&offsets;
    uintptr_t fs = (uintptr_t)__builtin_thread_pointer();
    record->clock_thread = (uint64_t)((uintptr_t)&mine - fs);
    for (size_t i = 0; i < n; i++) {
        const struct ph_clock_thread *t =
            (const void *)(uintptr_t)(thread[i].fs + record->clock_thread);
        /* The number of a thread's CPU clock: linux/posix-timers.h, CPUCLOCK_PERTHREAD_MASK
         * and CPUCLOCK_SCHED. */
        clockid_t id = (clockid_t)(~thread[i].tid << 3 | 6);
        thread[i].cpu_ns = kernel_ns(id) + (uint64_t)t->cpu_ns;
    }
}

static int64_t us_of(struct timeval tv)
{
    return tv.tv_sec * INT64_C(1000000) + tv.tv_usec;
}

static uint64_t ended; /* of ph_clock_children_ended: none ends without a page fault */

void ph_clock_note_usage(void)
{
    for (int i = 0; i < PH_USAGES; i += 2) {
        struct rusage u = {0};
        ph_libc_next()->getrusage(i == PH_USAGE_USER ? RUSAGE_SELF : RUSAGE_CHILDREN, &u);
        offsets.usage[i].then_us = us_of(u.ru_utime) + offsets.usage[i].offset_us;
        offsets.usage[i + 1].then_us = us_of(u.ru_stime) + offsets.usage[i + 1].offset_us;
        if (i == PH_USAGE_CHILDREN_USER)
            ended = (uint64_t)(u.ru_minflt + u.ru_nvcsw + u.ru_nivcsw);
    }
}

uint64_t ph_clock_children_ended(void)
{
    return ended;
}

void ph_clock_fork_child(void)
{
    offsets.ns[PH_CLOCK_CPU] = 0;
    memset(offsets.usage, 0, sizeof offsets.usage);
    mine.cpu_ns = 0;
}

/* ---- calls that tell the time -------------------------------------------------------------
 */

static void add(struct timespec *ts, int64_t ns)
{
    if (!ns)
        return;
    ns += ts->tv_nsec;
    ts->tv_sec += ns / NS - (ns % NS < 0);
    ts->tv_nsec = ns % NS + (ns % NS < 0) * NS;
}

EXPORT int clock_gettime(clockid_t id, struct timespec *ts)
{
    int rc = ph_clock_kernel(id, ts);
    if (rc != 0 || id == CLOCK_REALTIME)
        return rc;
    int index = index_of(id);
    add(ts, index >= 0 ? offset_of(index) : id == CLOCK_THREAD_CPUTIME_ID ? mine.cpu_ns : 0);
    return 0;
}

static void add_us(struct timeval *tv, int64_t us)
{
    us += us_of(*tv);
    *tv = (struct timeval){us / 1000000, us % 1000000};
}

/** What a thread had used before a recovery counts as its user time: the kernel tells of other
 *  threads, at an epoch, the sum alone. */
EXPORT int getrusage(__rusage_who_t who, struct rusage *u)
{
    int rc = ph_libc_next()->getrusage(who, u);
    int i = who == RUSAGE_CHILDREN ? PH_USAGE_CHILDREN_USER : PH_USAGE_USER;
    if (rc != 0)
        return rc;
    if (who == RUSAGE_THREAD) {
        add_us(&u->ru_utime, mine.cpu_ns / 1000);
    } else {
        add_us(&u->ru_utime, offsets.usage[i].offset_us);
        add_us(&u->ru_stime, offsets.usage[i + 1].offset_us);
    }
    return 0;
}

#define US_PER_TICK INT64_C(10000) /* times(2): USER_HZ is 100 on x86-64 */

EXPORT clock_t times(struct tms *t)
{
    clock_t elapsed = ph_libc_next()->times(t);
    if (t) {
        t->tms_utime += offsets.usage[PH_USAGE_USER].offset_us / US_PER_TICK;
        t->tms_stime += offsets.usage[PH_USAGE_SYSTEM].offset_us / US_PER_TICK;
        t->tms_cutime += offsets.usage[PH_USAGE_CHILDREN_USER].offset_us / US_PER_TICK;
        t->tms_cstime += offsets.usage[PH_USAGE_CHILDREN_SYSTEM].offset_us / US_PER_TICK;
    }
    return elapsed + offset_of(PH_CLOCK_MONOTONIC) / 1000 / US_PER_TICK;
}

EXPORT clock_t clock(void)
{
    struct timespec ts;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == 0
               ? ts.tv_sec * CLOCKS_PER_SEC + ts.tv_nsec / (NS / CLOCKS_PER_SEC)
               : -1;
}

/* ---- calls that wait until a moment -------------------------------------------------------
 */

static void set(int index, struct timespec shown)
{
    int64_t offset;
    mine.index = (uint32_t)index;
    mine.shown = shown;
    do {
        atomic_signal_fence(memory_order_seq_cst);
        offset = offset_of(index);
        mine.real = ph_clock_real_moment(shown, offset);
        atomic_signal_fence(memory_order_seq_cst);
    } while (offset != offset_of(index)); /* the program has been recovered here */
}

/** Where the kernel's moment is for @p shown. *outer is for leave: a handler of the program may
 *  wait while the thread that it interrupts does. */
static const struct timespec *enter(struct ph_clock_thread *outer, clockid_t clock,
                                    const struct timespec *shown)
{
    int index = index_of(clock);
    *outer = mine;
    if (index < 0 || !shown || shown->tv_nsec < 0 || shown->tv_nsec >= NS)
        return shown;
    set(index, *shown);
    return &mine.real;
}

static void leave(const struct ph_clock_thread *outer)
{
    set((int)outer->index, outer->shown);
}

#define UNTIL(type, name, clock, moment, parameters, ...)                                      \
    EXPORT type name parameters                                                                \
    {                                                                                          \
        struct ph_clock_thread outer;                                                          \
        moment = enter(&outer, clock, moment);                                                 \
        type result = ph_libc_next()->name(__VA_ARGS__);                                       \
        leave(&outer);                                                                         \
        return result;                                                                         \
    }

/** Which clock the condition has, from glibc's bits (nptl/pthread_cond_common.c). */
static clockid_t clock_of(const pthread_cond_t *cond)
{
    return *(const volatile unsigned *)&cond->__data.__wrefs & 2 ? CLOCK_MONOTONIC
                                                                 : CLOCK_REALTIME;
}

UNTIL(int, pthread_cond_timedwait, clock_of(cond), until,
      (pthread_cond_t * cond, pthread_mutex_t *mutex, const struct timespec *until), cond,
      mutex, until)
UNTIL(int, pthread_cond_clockwait, clock, until,
      (pthread_cond_t * cond, pthread_mutex_t *mutex, clockid_t clock,
       const struct timespec *until),
      cond, mutex, clock, until)
UNTIL(int, sem_clockwait, clock, until,
      (sem_t * sem, clockid_t clock, const struct timespec *until), sem, clock, until)
UNTIL(int, pthread_mutex_clocklock, clock, until,
      (pthread_mutex_t * mutex, clockid_t clock, const struct timespec *until), mutex, clock,
      until)
UNTIL(int, pthread_rwlock_clockrdlock, clock, until,
      (pthread_rwlock_t * lock, clockid_t clock, const struct timespec *until), lock, clock,
      until)
UNTIL(int, pthread_rwlock_clockwrlock, clock, until,
      (pthread_rwlock_t * lock, clockid_t clock, const struct timespec *until), lock, clock,
      until)
UNTIL(int, pthread_clockjoin_np, clock, until,
      (pthread_t thread, void **value, clockid_t clock, const struct timespec *until), thread,
      value, clock, until)

EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until,
                           struct timespec *left)
{
    struct ph_clock_thread outer;
    until = enter(&outer, flags & TIMER_ABSTIME ? clock : CLOCK_REALTIME, until);
    int result = ph_libc_next()->clock_nanosleep(clock, flags, until, left);
    leave(&outer);
    return result;
}

/* ---- timers -------------------------------------------------------------------------------
 */

/** The clock of a timerfd, which only fdinfo tells. */
static clockid_t clock_of_timerfd(int fd)
{
    char path[48], text[512];
    int saved = errno, clock = CLOCK_REALTIME;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    int info = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = info < 0 ? 0 : read(info, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    const char *p = strstr(text, "clockid: ");
    if (!p || sscanf(p, "clockid: %d", &clock) != 1)
        clock = CLOCK_REALTIME;
    if (info >= 0)
        close(info);
    errno = saved;
    return clock;
}

/** @p new, for a moment, by the kernel's clock; 0 disarms. */
static struct itimerspec real_setting(const struct itimerspec *new, clockid_t clock)
{
    struct itimerspec real = *new;
    int index = index_of(clock);
    if (index >= 0 && (new->it_value.tv_sec | new->it_value.tv_nsec))
        real.it_value = ph_clock_real_moment(new->it_value, offset_of(index));
    return real;
}

EXPORT int timerfd_settime(int fd, int flags, const struct itimerspec *new,
                           struct itimerspec *old)
{
    struct itimerspec real;
    if (new && (flags & TFD_TIMER_ABSTIME)) {
        real = real_setting(new, clock_of_timerfd(fd));
        new = &real;
    }
    return ph_libc_next()->timerfd_settime(fd, flags, new, old);
}

/** Timers with another clock than CLOCK_REALTIME; what does not fit is left as it is. */
static struct {
    _Atomic(timer_t) timer;
    clockid_t clock;
} created[256];
static const size_t most = sizeof created / sizeof created[0];

/* A timer may be NULL: the kernel begins with 0. */
static timer_t key(timer_t timer)
{
    return (timer_t)((uintptr_t)timer + 1);
}

static void note_timer(timer_t timer, clockid_t clock)
{
    for (size_t i = 0; i < most && index_of(clock) >= 0; i++) {
        timer_t none = NULL;
        if (created[i].timer ||
            !atomic_compare_exchange_strong(&created[i].timer, &none, key(timer)))
            continue;
        created[i].clock = clock;
        return;
    }
}

EXPORT int timer_create(clockid_t clock, struct sigevent *event, timer_t *timer)
{
    ph_calls_begin(PH_CALLS_TIMERS);
    int rc = ph_libc_next()->timer_create(clock, event, timer);
    ph_calls_end(PH_CALLS_TIMERS);
    if (rc == 0)
        note_timer(*timer, clock);
    return rc;
}

EXPORT int timer_delete(timer_t timer)
{
    for (size_t i = 0; i < most; i++)
        if (created[i].timer == key(timer))
            created[i].timer = NULL;
    return ph_libc_next()->timer_delete(timer);
}

EXPORT int timer_settime(timer_t timer, int flags, const struct itimerspec *new,
                         struct itimerspec *old)
{
    struct itimerspec real;
    for (size_t i = 0; i < most && new && (flags & TIMER_ABSTIME); i++)
        if (created[i].timer == key(timer)) {
            real = real_setting(new, created[i].clock);
            new = &real;
            break;
        }
    return ph_libc_next()->timer_settime(timer, flags, new, old);
}

/* ---- the same by syscall(2) ---------------------------------------------------------------
 */

long ph_kernel_call(long nr, ...); /* identity_syscall.c */

/** FUTEX_WAIT has a duration; the others a moment, by this clock. */
static bool waits_until(long op)
{
    op &= FUTEX_CMD_MASK;
    return op == FUTEX_WAIT_BITSET || op == FUTEX_WAIT_REQUEUE_PI || op == FUTEX_LOCK_PI2;
}

long ph_clock_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
    struct ph_clock_thread outer;
    switch (nr) {
    case SYS_clock_gettime:
        return clock_gettime((clockid_t)a, (struct timespec *)b);
    case SYS_getrusage:
        return getrusage((__rusage_who_t)a, (struct rusage *)b);
    case SYS_times:
        return times((struct tms *)a);
    case SYS_timerfd_settime:
        return timerfd_settime((int)a, (int)b, (const struct itimerspec *)c,
                               (struct itimerspec *)d);
    case SYS_clock_nanosleep: {
        int err = clock_nanosleep((clockid_t)a, (int)b, (const struct timespec *)c,
                                  (struct timespec *)d);
        errno = err ? err : errno;
        return err ? -1 : 0;
    }
    default: /* SYS_futex */
        if (!waits_until(b) || (b & FUTEX_CLOCK_REALTIME) || !d)
            return ph_kernel_call(nr, a, b, c, d, e, f);
        d = (long)enter(&outer, CLOCK_MONOTONIC, (const struct timespec *)d);
        long result = ph_kernel_call(nr, a, b, c, d, e, f);
        leave(&outer);
        return result;
    }
}
