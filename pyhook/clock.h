/* SPDX-License-Identifier: MIT */
/* clock.h - the program's clocks go on from the epoch, see clock.c */
#ifndef PH_CLOCK_H
#define PH_CLOCK_H

#include "record.h"

#include <stddef.h>
#include <time.h>

/** The kernel's clock. The agent's own calls of clock_gettime are this: see CMakeLists.txt. */
int ph_clock_kernel(clockid_t id, struct timespec *ts);

/** With all threads parked: what the clocks show goes into the record and its threads. */
void ph_clock_note(struct ph_record_pm *record, struct ph_thread_pm *thread, size_t n);

/** The CPU time of getrusage, into the program's memory: before that is copied. */
void ph_clock_note_usage(void);

/** A number, as of then, that is another one when a child has been waited for since. */
uint64_t ph_clock_children_ended(void);

/** In a forked child: its CPU time is its own. */
void ph_clock_fork_child(void);

/** The calls of syscall(2) that tell or take a time, as syscall does them. */
long ph_clock_syscall(long nr, long a, long b, long c, long d, long e, long f);

#endif
