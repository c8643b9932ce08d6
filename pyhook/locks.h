/* SPDX-License-Identifier: MIT */
/*
 * locks.h - whether the program may have taken a lock on a file since it was last looked
 *
 * What locks a description has is told by a file of /proc that takes 11 us to read, as long as
 * ten system calls. Most programs take none.
 *
 *   K1  A lock, or a lease, of the program's is taken between `begun` and `ended` of a call of
 *       libc's. If both are what they were when a description was found without a lock, and
 *       equal, it has none.
 *
 *   K2  Nor has any child of the program's taken one: it has none, and has waited for none
 * since.
 *
 * Not seen: system calls made by hand, and other processes to which a descriptor was sent. So
 * it is looked now and then all the same.
 */
#ifndef PH_LOCKS_H
#define PH_LOCKS_H

#include <stdint.h>

/** Around a call that may take a lock. A thread may be parked, or end, in between. */
void ph_locks_begin(void);
void ph_locks_end(void);

/** The number of such calls that have begun; UINT64_MAX: one has not ended. */
uint64_t ph_locks_calls(void);

#endif
