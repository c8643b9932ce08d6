/* SPDX-License-Identifier: MIT */
/*
 * keeper_files.h - storing what the program maps from files, bit by bit
 *
 * The program names its mapped files with an epoch; the drainer calls ph_keeper_files_step when
 * it has nothing else to do. A step takes about a millisecond, so an epoch never waits long. A
 * file that is not the one named, or changes while it is read, is not stored. Then it looks now
 * and then whether they are still the same, for the program need not.
 */
#ifndef PH_KEEPER_FILES_H
#define PH_KEEPER_FILES_H

#include "pool.h"

struct ph_keeper_file; /* one that is to be stored */

struct ph_keeper_files {
    const char *command; /* for messages */
    struct ph_pool *pool;
    unsigned char *named; /* what the epoch under way has named so far */
    size_t named_size, named_room;
    unsigned char *list; /* what has been named last */
    size_t list_size, list_room;
    uint64_t looked_ns; /* at all of these */
    struct ph_keeper_file *queue;
    size_t n, room, next; /* queue[next] is being stored, or comes next */
    int fd;               /* of it; -1: not begun */
    uint64_t at;          /* bytes of it stored */
    int64_t changed_ns;   /* its change time when it was opened */
    void *buffer;
    uint64_t ready_ns; /* CLOCK_MONOTONIC: not before */
    uint64_t step_ns;  /* of the last step */
    bool unpublished, complained;
};

/** Forget names that came with an epoch that was not finished; take @p size bytes of names
 * (struct ph_mapped_file, staging.h); all of them have come. */
void ph_keeper_files_forget(struct ph_keeper_files *files);
void ph_keeper_files_name(struct ph_keeper_files *files, const void *bytes, size_t size);
void ph_keeper_files_named(struct ph_keeper_files *files);

/** Whether there is something to do now. */
bool ph_keeper_files_pending(const struct ph_keeper_files *files);

/** Do some of it. */
void ph_keeper_files_step(struct ph_keeper_files *files);

/**
 * Now and then: whether the pool has copies of all files with text that were named, and they
 * are still what is on the disk. *hold becomes their ph_mapped_hash or 0.
 */
void ph_keeper_files_look(struct ph_keeper_files *files, _Atomic uint64_t *hold);

/** The program has died: do all that is left, but no longer than @p most_ns. */
void ph_keeper_files_finish(struct ph_keeper_files *files, uint64_t most_ns);

void ph_keeper_files_free(struct ph_keeper_files *files);

#endif
