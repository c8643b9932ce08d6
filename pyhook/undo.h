/* SPDX-License-Identifier: MIT */
/* undo.h - what the program cuts off its files is kept; see undo.c */
#ifndef PH_PYHOOK_UNDO_H
#define PH_PYHOOK_UNDO_H

#include <stdbool.h>
#include <sys/types.h>

/**
 * Before a call that makes a file shorter, by descriptor or by path; with openat's @p flags, or
 * to @p length bytes. What an epoch needs of it is kept. Until ph_undo_after has been given the
 * result no epoch is taken; errno is as before.
 */
bool ph_undo_before_open(int dir, const char *path, int flags);
bool ph_undo_before_truncate(const char *path, off_t length);
bool ph_undo_before_ftruncate(int fd, off_t length);
void ph_undo_after(bool inside);

/** An epoch begins, and ends: no file is made shorter meanwhile. */
void ph_undo_epoch_begin(void);
void ph_undo_epoch_end(void);

/** With all threads parked: pages are about to be copied; and, if the epoch was @p taken, its
 * files are those to look after. */
void ph_undo_capture_begin(void);
void ph_undo_capture_end(bool taken);

#endif
