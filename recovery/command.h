/* SPDX-License-Identifier: MIT */
/* command.h - what the parts of the command pyheap-recover share */
#ifndef PH_COMMAND_H
#define PH_COMMAND_H

#include "recovery.h"

#include "allocator/keeper.h"

#define PH_COMMAND "pyheap-recover"

/* ---- show.c --------------------------------------------------------------------------- */

/** All recoverable epochs, newest first; freed by the caller. */
struct ph_epoch_info *ph_command_epochs(struct ph_pool *pool, size_t *n);

/** The view of epoch @p number, with its record checked, but not its pages. @return 0, or why
 * not, with @p detail. */
int ph_command_view(struct ph_pool *pool, uint64_t number, struct ph_view **view, char *detail,
                    size_t size);

void ph_command_list(struct ph_pool *pool, const char *path);

/** Verify all epochs and files, and say what is found. @return 0, or the last error. */
int ph_command_verify(struct ph_pool *pool);

/* ---- attempt.c ------------------------------------------------------------------------ */

/**
 * Make a child that becomes the program of @p view, and wait until all of its memory is right,
 * or the keeper's check takes care of the rest. Large stretches of the heap are mapped if they
 * are at least @p least pages in all; then the view belongs to the keeper from here on.
 * @param mapped receives whether that is so.
 * @return 0, and the child; PH_ECORRUPT with r->detail; PH_EMAP: try it without mapping.
 */
int ph_attempt(struct ph_recovery *r, struct ph_view *view, struct ph_keeper *keeper,
               const char *restorer, uint64_t epoch, uint64_t least, pid_t *child,
               bool *mapped);

#endif
