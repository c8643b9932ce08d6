/* SPDX-License-Identifier: MIT */
/* resume.h - one command to start a program, and to go on with it when the job runs again */
#ifndef PH_RESUME_H
#define PH_RESUME_H

#include <signal.h>

/**
 * If the pool at @p path holds a run of @p command that has not finished, become
 * pyheap-recover, with @p options (a list that ends with NULL) and the signal mask @p mask. If
 * it has finished, say so and exit with status 0. A run of another command that has not
 * finished ends this one with PH_EUNFINISHED.
 * @return if there is nothing of that: whoever starts the program finds out what else there is.
 */
void ph_resume(const char *path, const char *command, char *const *options,
               const sigset_t *mask);

#endif
