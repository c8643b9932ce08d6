/* SPDX-License-Identifier: MIT */
/* files.h - what the parts share that bring descriptors back; all of it runs in the child */
#ifndef PH_RECOVERY_FILES_H
#define PH_RECOVERY_FILES_H

#include "recovery.h"

#include <limits.h>

/** Fill r->detail with @p f, @p what and errno's text. @return PH_EFILES, PH_EMFILE. */
int ph_reopen_fail(struct ph_recovery *r, const struct ph_file_pm *f, const char *what);

/** The record's descriptors. */
const struct ph_file_pm *ph_reopen_all(const struct ph_recovery *r, uint64_t *n);

/** The descriptor with this number; NULL: the program has none. */
const struct ph_file_pm *ph_reopen_by_number(const struct ph_recovery *r, int fd);

/** The data of @p f, f->data_size bytes. */
const void *ph_reopen_data(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Walk over the chunks of @p f: start with NULL. @return the next one, NULL at the end. */
const struct ph_chunk_pm *ph_reopen_chunk(const struct ph_recovery *r,
                                          const struct ph_file_pm *f,
                                          const struct ph_chunk_pm *last);

/** Put @p fd at the number of @p f, and close it where it was. @p fd < 0 is a failure. */
int ph_reopen_place(struct ph_recovery *r, int fd, const struct ph_file_pm *f);

/** Move @p fd to a number that the program does not use. @return the new one, -1. */
int ph_reopen_aside(const struct ph_recovery *r, int fd);

/** The flags of open(2) that make sense when a file is opened again. */
int ph_reopen_flags(const struct ph_file_pm *f);

/** The descriptor by which pyheap-recover was given the very file that @p f is, under the
 * number that the program has it under; -1: it was not. */
int ph_reopen_given(const struct ph_file_pm *f);

/** One end of a connection that is closed at the other: reading tells so at once. */
int ph_reopen_dead(struct ph_recovery *r, const struct ph_file_pm *f);

/* ---- files_special.c ---------------------------------------------------------------- */

/** What is no file: pipes, sockets, epoll and the like. */
int ph_reopen_special(struct ph_recovery *r, const struct ph_file_pm *f);

/** When all are in place: what epoll descriptor @p f watches. */
int ph_reopen_watch_again(struct ph_recovery *r, const struct ph_file_pm *f);

/* ---- undo.c, undo_names.c ----------------------------------------------------------- */

/** One thing that the program has done to a file since the epoch. */
struct ph_undo {
    uint64_t epoch, number;
    const struct ph_undo_pm *head; /* all of the file, mapped */
    uint64_t size;
    uint64_t written_ns;
    bool forgotten;
    bool copied; /* with the pool and all, it may be hoped */
};

const char *ph_recovery_undo_path(const struct ph_undo *u);

/** Where the file of @p f is by now because the program has renamed or removed it. @return
 *  whether it has, and the file is there. */
bool ph_recovery_undo_place(const struct ph_recovery *r, const struct ph_file_pm *f,
                            char buf[PATH_MAX]);

/** Whether it gets its name back. */
bool ph_recovery_undo_renames(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Give files their names back. @return 0, PH_EFILES. */
int ph_recovery_undo_names(struct ph_recovery *r);

/* ---- locks.c ------------------------------------------------------------------------ */

/** Take the locks that belong to the description of @p f, which is at its number. */
int ph_reopen_lock(struct ph_recovery *r, const struct ph_file_pm *f);

#endif
