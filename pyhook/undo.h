/* SPDX-License-Identifier: MIT */
/* undo.h - what the program cuts off its files is kept; see undo.c */
#ifndef PH_PYHOOK_UNDO_H
#define PH_PYHOOK_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
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

/** Before a call that takes a file's name, or gives its name to another: the same. */
bool ph_undo_before_unlink(int dir, const char *path);
bool ph_undo_before_rename(int from_dir, const char *from, int to_dir, const char *to);

/** Whether a file has no name any more but the one by which it is kept. */
bool ph_undo_is_removed(uint64_t dev, uint64_t ino);

/** An epoch begins, and ends: no file is made shorter meanwhile. */
void ph_undo_epoch_begin(void);
void ph_undo_epoch_end(void);

/** With all threads parked: pages are about to be copied; and, if the epoch was @p taken, its
 * files are those to look after. */
void ph_undo_capture_begin(void);
void ph_undo_capture_end(bool taken);

/* ---- undo.c, for undo_names.c ------------------------------------------------------- */

struct ph_undo_what {
    const struct stat *st; /* the file */
    int fd, link;          /* whose bytes, if any; and a file to be linked, or -1 */
    bool own;              /* fd is ours, and can be positioned */
    uint32_t flags;        /* PH_UNDO_* */
    uint64_t from, to;     /* bytes */
};

/** No epoch from now on, until ph_undo_after. @return false: there is none to keep for. */
bool ph_undo_enter(void);

/** Whether an epoch may need it under this path. @param certain whether it does. */
bool ph_undo_needs_name(const struct stat *st, const char *path, bool *certain);

/** The name of what @p fd is open on. @return whether it is known, and fits. */
bool ph_undo_path_of(int fd, char *buf, size_t size);

/** SQLite's own, which recovery leaves as they are. */
bool ph_undo_of_database(const char *path);

/** Write one file of the directory, durably. @param n bytes of @p path. @return 0, -errno. */
long ph_undo_write(const struct ph_undo_what *what, const char *path, size_t n);

/** Say so once. */
void ph_undo_complain(const char *what, const char *path, long err);

#endif
