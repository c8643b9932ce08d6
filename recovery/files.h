/* SPDX-License-Identifier: MIT */
/* files.h - what the parts share that bring descriptors back; all of it runs in the child */
#ifndef PH_RECOVERY_FILES_H
#define PH_RECOVERY_FILES_H

#include "recovery.h"

#include "allocator/undo.h"

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

/* ---- undo.c, undo_read.c, undo_names.c ---------------------------------------------- */

/** One thing that the program has done since the epoch (allocator/undo.h). */
struct ph_undo {
    uint64_t epoch, number;
    enum ph_undo_kind kind;
    uint64_t life; /* of a note */
    bool undone;   /* by an earlier recovery, and not done again */
    uint64_t dev, ino, birth_ns, value;
    uint64_t first_ino, first_birth_ns; /* as noted, if a copy has taken its place */
    uint32_t sum;
    const char *path, *to;
    uint64_t written_ns;

    /* PH_UNDO_BYTES */
    const struct ph_undo_pm *head; /* all of the file, mapped */
    uint64_t size;
    bool forgotten;
    bool copied; /* with the pool and all, it may be hoped */

    char text[]; /* of a note */
};

/** Whether the program has said since the epoch that this file is to be left as it is. */
bool ph_recovery_undo_kept(const struct ph_recovery *r, uint64_t dev, uint64_t ino,
                           const char *path);

/** Whether it is to be left. */
bool ph_undo_is_left(const struct ph_recovery *r, const struct ph_undo *u);

/** Whether what has its @p path, or is open, is the very thing that @p u is about. */
bool ph_undo_is_very_thing(const struct ph_undo *u, int dir, const char *path);

/** Whether the program had removed @p f, and a recovery since the epoch has given it back,
 * perhaps as a copy. */
bool ph_recovery_undo_gave_back(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Where the file of @p f is by now because the program has renamed or removed it. @return
 *  whether it has, and the file is there. */
bool ph_recovery_undo_place(const struct ph_recovery *r, const struct ph_file_pm *f,
                            char buf[PATH_MAX]);

/** Where what was called @p path is by now because of that. @return whether it is there. */
bool ph_recovery_undo_left_at(const struct ph_recovery *r, const char *path,
                              char buf[PATH_MAX]);

/** Whether the file of that inode, which had @p path, was removed and is kept with the pool, at
 * @p buf: itself, or a copy of it with a copy of the pool. */
bool ph_recovery_undo_keeps(const struct ph_recovery *r, const char *path, uint64_t dev,
                            uint64_t ino, char buf[PATH_MAX]);

/** Whether the program has removed the directory @p path: there will be another one. */
bool ph_recovery_undo_remakes(const struct ph_recovery *r, const char *path);

/** Whether @p f is open on one of these: the restorer opens it, when it is there. */
bool ph_recovery_undo_is_late(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Whether it gets its name back. */
bool ph_recovery_undo_renames(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Undo number @p i, which is about a name. @return 0, PH_EFILES. */
int ph_recovery_undo_name(struct ph_recovery *r, size_t i);

/** What recovery takes is put aside up to this size, bytes of each file. */
#define PH_UNDO_ASIDE_MAX (16 << 20)

/** What belongs to @p u in the pool's directory. @param suffix PH_UNDO_LINK, PH_UNDO_ASIDE. */
void ph_undo_entry(const struct ph_recovery *r, const struct ph_undo *u, const char *suffix,
                   char buf[PATH_MAX]);

/** Have the directory of @p path durable, before another one is, or NULL: now. */
void ph_undo_sync_directory(struct ph_recovery *r, const char *path);

/** Note a failure for r->detail. @return PH_EFILES. */
int ph_undo_fail(struct ph_recovery *r, const char *path, const char *what);

/* ---- locks.c ------------------------------------------------------------------------ */

/** Take the locks that belong to the description of @p f, which is at its number. */
int ph_reopen_lock(struct ph_recovery *r, const struct ph_file_pm *f);

#endif
