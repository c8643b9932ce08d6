/* SPDX-License-Identifier: MIT */
/*
 * restorer_timers.c - timers of timer_create(2) come back under their numbers; timerfds are set
 *
 * Newer kernels make a timer with the number that is asked for. Older ones number them one
 * after the other: a number is reached by making timers and deleting them again.
 */
#include "allocator/syscall.h"
#include "restorer.h"

#include <asm/ioctl.h>
#include <linux/prctl.h>
#include <signal.h>

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS 77 /* linux/prctl.h of Linux 6.15 */
#endif

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t) /* linux/timerfd.h */
#endif

#define NS UINT64_C(1000000000)

/* The kernel's struct sigevent, as far as it is used. */
struct event {
    uint64_t value;
    int32_t signal, notify, tid, unused[11];
};
_Static_assert(sizeof(struct event) == 64, "struct sigevent of the kernel");

/* The kernel's struct itimerspec. */
struct setting {
    uint64_t interval_s, interval_ns, value_s, value_ns;
};

static int32_t thread_now(const struct ph_record_pm *record, uint32_t tid)
{
    const struct ph_thread_pm *t = ph_r_table(&record->threads);
    for (uint64_t i = 0; i < record->threads.count; i++)
        if (t[i].tid == tid)
            return *(const volatile int32_t *)t[i].tid_address;
    return 0;
}

static void make(const struct ph_record_pm *record, const struct ph_timer_pm *t)
{
    struct event event = {
        .value = t->value, .signal = t->signal, .notify = t->notify, .unused = {0}};
    if (t->tid) {
        event.notify |= SIGEV_THREAD_ID;
        event.tid = thread_now(record, t->tid);
    }
    int32_t id = t->id;
    for (;;) {
        long r = ph_syscall(SYS_timer_create, t->clock, &event, &id);
        if (r < 0 || id > t->id)
            ph_r_fail(PH_EKERNEL, "making timer", (uint64_t)t->id, r);
        if (id == t->id)
            return;
        ph_syscall(SYS_timer_delete, id);
    }
}

void ph_r_timers(const struct ph_record_pm *record)
{
    const struct ph_timer_pm *t = ph_r_table(&record->timers);
    uint64_t n = record->timers.count;
    ph_syscall(SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0);
    /* The list begins with any of them. */
    for (int64_t last = -1;;) {
        const struct ph_timer_pm *next = 0;
        for (uint64_t i = 0; i < n; i++)
            if (t[i].id > last && (!next || t[i].id < next->id))
                next = &t[i];
        if (!next)
            break;
        make(record, next);
        last = next->id;
    }
    ph_syscall(SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0);
}

/** The program's clocks and what it waits for by them begin to run at the same time. */
static void start_timerfds(const struct ph_record_pm *record)
{
    const struct ph_file_pm *f = ph_r_table(&record->files);
    for (uint64_t i = 0; i < record->files.count; i++) {
        const struct ph_timerfd_pm *t =
            (const void *)((const char *)ph_r_table(&record->data) + f[i].data_offset);
        if (f[i].kind != PH_FILE_TIMERFD || f[i].same_as >= 0)
            continue;
        struct setting when = {t->interval_ns / NS, t->interval_ns % NS, t->value_ns / NS,
                               t->value_ns % NS};
        long r = ph_syscall(SYS_timerfd_settime, f[i].fd, t->flags, &when, 0);
        if (r < 0)
            ph_r_fail(PH_EFILES, "setting timerfd", (uint64_t)f[i].fd, r);
        if (t->ticks && ph_syscall(SYS_ioctl, f[i].fd, TFD_IOC_SET_TICKS, &t->ticks) < 0) {
            /* A kernel without that: let it expire at once, which gives one tick at least. */
            when.value_s = 0;
            when.value_ns = 1;
            ph_syscall(SYS_timerfd_settime, f[i].fd, 0, &when, 0);
        }
    }
}

void ph_r_timers_start(const struct ph_record_pm *record)
{
    const struct ph_timer_pm *t = ph_r_table(&record->timers);
    for (uint64_t i = 0; i < record->timers.count; i++) {
        struct setting when = {t[i].interval_ns / NS, t[i].interval_ns % NS, t[i].value_ns / NS,
                               t[i].value_ns % NS};
        if (t[i].value_ns)
            ph_syscall(SYS_timer_settime, t[i].id, 0, &when, 0);
    }
    start_timerfds(record);
}

bool ph_r_timers_signal(const struct ph_record_pm *record, int sig)
{
    const struct ph_timer_pm *t = ph_r_table(&record->timers);
    unsigned n = 0;
    bool expired = false;
    for (uint64_t i = 0; i < record->timers.count; i++) {
        n += t[i].signal == sig;
        expired |= t[i].signal == sig && t[i].value_ns == 1;
    }
    /* 32 is glibc's own: one without a timer ends its thread. */
    return n == 1 || expired || (n && sig == 32);
}
