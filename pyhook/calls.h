/* SPDX-License-Identifier: MIT */
/*
 * calls.h - whether the program may have changed something since an epoch asked the kernel
 *
 * What locks a description has is told by a file of /proc that takes 11 us to read; signal
 * actions and limits are 80 system calls, and a library is four mappings. Most programs never
 * change any. Where epochs follow each other closely, an answer of less than a second ago still
 * holds:
 *
 *   K1  What the program changes by a call of libc's it changes between `begun` and `ended` of
 *       that call. If both are what they were when the kernel was asked, and equal, it has
 *       changed nothing.
 *   K2  An answer is used for a second. Then what was done by hand, without libc, or by another
 *       process, is seen.
 */
#ifndef PH_CALLS_H
#define PH_CALLS_H

#include <stdbool.h>
#include <stdint.h>

enum ph_calls {
    PH_CALLS_LOCKS,
    PH_CALLS_TIMERS,
    PH_CALLS_LIMITS,
    PH_CALLS_SIGNALS,
    PH_CALLS_MAPPINGS, /* memory.c: those that may end or change one */
    PH_CALLS
};

/** Around a call that may change something of that kind. A thread may be parked, or end, in
 * between. */
void ph_calls_begin(enum ph_calls kind);
void ph_calls_end(enum ph_calls kind);

/** With all threads parked: how many there have been; UINT64_MAX: one has not ended. */
uint64_t ph_calls_made(enum ph_calls kind);

/* ---- capture.c ------------------------------------------------------------------------- */

/** When the kernel was asked, and which calls there had been. Zeros: never. */
struct ph_asked {
    uint64_t ns, generation, calls;
};

/** The kernel is being asked, for this epoch. */
struct ph_asked ph_asked_now(enum ph_calls kind);
/** Whether the answer of @p then holds still. */
bool ph_asked_holds(const struct ph_asked *then, enum ph_calls kind);

#endif
