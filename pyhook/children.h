/* SPDX-License-Identifier: MIT */
/*
 * children.h - child processes do not come back
 *
 * An epoch names them. To a recovered program those that it had are children which a SIGKILL
 * has ended and which have not been waited for: waiting for one tells so, once, and so does
 * SIGCHLD. Without that a program would be told that there is no such child, which Python's
 * subprocess takes for success. Of one that had ended before the epoch and was not waited for,
 * the status is the true one.
 *
 *  C1  An entry belongs to the generation whose epoch found it; from the next one on it is
 * lost. C2  An entry is taken out, by whoever waits for it, with one atomic exchange.
 */
#ifndef PH_CHILDREN_H
#define PH_CHILDREN_H

#include <stdbool.h>
#include <sys/types.h>

/** Before an epoch's pages are copied, threads parked: which children there are. */
void ph_children_note(void);

/** Whether there was any then, be it one that has ended and was not waited for. */
bool ph_children_any(void);

/** Say of those that live that they cannot come back. */
void ph_children_name(void);

/** In a recovered program: SIGCHLD, if children were lost. */
void ph_children_tell(void);

/**
 * A lost child to wait for.
 * @param pid of which; -1: any.
 * @param status receives its status, as of waitpid. @param keep it is to be found again.
 * @return its pid; 0: there is none.
 */
pid_t ph_children_lost(pid_t pid, int *status, bool keep);

#endif
