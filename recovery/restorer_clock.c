/* SPDX-License-Identifier: MIT */
/* restorer_clock.c - the program's clocks go on from the epoch: see pyhook/clock.c */
#include "allocator/syscall.h"
#include "plan.h"
#include "restorer.h"

#include <sys/resource.h>

#define NS        INT64_C(1000000000)
#define COARSE_NS INT64_C(10000000) /* CLOCK_MONOTONIC_COARSE is up to a tick behind */

static int64_t now_ns(clockid_t id)
{
    struct timespec ts = {0};
    ph_syscall(SYS_clock_gettime, id, &ts);
    return ts.tv_sec * NS + ts.tv_nsec;
}

static int64_t us_of(struct timeval tv)
{
    return tv.tv_sec * INT64_C(1000000) + tv.tv_usec;
}

void ph_r_clocks(const struct ph_plan *plan, const struct ph_record_pm *record)
{
    static const clockid_t id[] = {
#define X(index, id) id,
        PH_CLOCK_LIST(X)
#undef X
    };
    struct ph_clock_offsets *offsets = (void *)record->clock_offsets;
    const struct ph_thread_pm *t = ph_r_table(&record->threads);
    int64_t down = now_ns(CLOCK_REALTIME) - (int64_t)record->realtime_ns;
    if (!(plan->flags & PH_PLAN_DOWNTIME) || down < COARSE_NS)
        down = COARSE_NS;
    if (!offsets)
        return;
    for (int i = 0; i < PH_CLOCKS; i++)
        offsets->ns[i] =
            (int64_t)record->clock_ns[i] - now_ns(id[i]) + (i == PH_CLOCK_CPU ? 0 : down);
    for (int i = 0; i < PH_USAGES; i += 2) {
        struct rusage u = {0};
        ph_syscall(SYS_getrusage, i == PH_USAGE_USER ? RUSAGE_SELF : RUSAGE_CHILDREN, &u);
        offsets->usage[i].offset_us = offsets->usage[i].then_us - us_of(u.ru_utime);
        offsets->usage[i + 1].offset_us = offsets->usage[i + 1].then_us - us_of(u.ru_stime);
    }
    for (uint64_t i = 0; i < record->threads.count; i++) {
        struct ph_clock_thread *own = (void *)(t[i].fs + record->clock_thread);
        own->cpu_ns = (int64_t)t[i].cpu_ns;
        if (own->index < PH_CLOCKS)
            own->real = ph_clock_real_moment(own->shown, offsets->ns[own->index]);
    }
}
