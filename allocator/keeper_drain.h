/* SPDX-License-Identifier: MIT */
/*
 * keeper_drain.h - the keeper's second thread: from the staging ring into the pool
 *
 * Parts of keeper.c's, which starts and ends the thread.
 */
#ifndef PH_KEEPER_DRAIN_H
#define PH_KEEPER_DRAIN_H

/** The thread: consume batches of the struct ph_keeper @p keeper until it says stop and nothing
 * is left. @return NULL. */
void *ph_keeper_drain(void *keeper);

/** What has been written needs its place in the ring no longer. From any thread. */
void ph_keeper_release(void *keeper);

#endif
