/* SPDX-License-Identifier: MIT */
/*
 * record_clock.h - the program's clocks, as the record and the restorer know them
 *
 * The program's clocks go on from the epoch. What it sees is the kernel's clock plus an offset,
 * which the restorer writes into the program before any thread of it goes on (pyhook/clock.c).
 */
#ifndef PH_RECORD_CLOCK_H
#define PH_RECORD_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Index, the clocks' numbers. The last one starts with the process, the others with the
 * machine. */
#define PH_CLOCK_LIST(X)                                                                       \
    X(PH_CLOCK_MONOTONIC, CLOCK_MONOTONIC)                                                     \
    X(PH_CLOCK_RAW, CLOCK_MONOTONIC_RAW)                                                       \
    X(PH_CLOCK_BOOT, CLOCK_BOOTTIME)                                                           \
    X(PH_CLOCK_CPU, CLOCK_PROCESS_CPUTIME_ID)

enum ph_clock_index {
#define X(index, id) index,
    PH_CLOCK_LIST(X)
#undef X
        PH_CLOCKS
};

/** CPU time as getrusage(2) tells it: shown at the epoch, shown minus the kernel's. */
struct ph_clock_usage {
    int64_t then_us, offset_us;
};
enum {
    PH_USAGE_USER,
    PH_USAGE_SYSTEM,
    PH_USAGE_CHILDREN_USER,
    PH_USAGE_CHILDREN_SYSTEM,
    PH_USAGES
};

/** At the address that the record names: shown = the kernel's + offset. */
struct ph_clock_offsets {
    int64_t ns[PH_CLOCKS];
    struct ph_clock_usage usage[PH_USAGES];
};

/**
 * Of each thread, at fs plus what the record says: the moment that it waits for, and the offset
 * of its CPU time.
 */
struct ph_clock_thread {
    struct timespec shown, real; /* the program's; by the kernel's clock */
    int64_t cpu_ns;
    uint32_t index, reserved;
};

/** The moment @p shown by a clock that the kernel has @p offset_ns behind. One that has passed
 * long since is not negative, which would be invalid, nor 0, which means none to timers. */
static inline struct timespec ph_clock_real_moment(struct timespec shown, int64_t offset_ns)
{
    const int64_t second = 1000000000;
    int64_t s, ns = shown.tv_nsec - offset_ns % second;
    if (__builtin_sub_overflow((int64_t)shown.tv_sec, offset_ns / second, &s))
        return shown; /* for ever */
    s += ns >= second ? 1 : ns < 0 ? -1 : 0;
    ns += ns >= second ? -second : ns < 0 ? second : 0;
    return s < 0 ? (struct timespec){0, 1} : (struct timespec){s, ns};
}

#endif
