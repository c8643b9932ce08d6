/* SPDX-License-Identifier: MIT */
/*
 * recovery.h - the hosted side of recovery: reading an epoch, checking it, making the plan
 *
 * The order of reading: recover.c (the command), record.c (is the record well formed), check.c
 * (does it fit this machine), files.c and its parts (the program's descriptors, see files.h),
 * then restorer.c.
 */
#ifndef PH_RECOVERY_H
#define PH_RECOVERY_H

#include "allocator/pool.h"
#include "pyhook/record.h"

#include <sys/types.h>

struct ph_recovery {
    const struct ph_record_pm *record;
    bool keep_files;   /* do not cut files back to their length at the epoch */
    char detail[4352]; /* about the last failure */
    char note[4352];   /* what a person should know although recovery goes on; "": nothing */
};

/** Hold @p record against R1 to R6 of record.h. @return 0, PH_ECORRUPT, PH_ENEWER. */
int ph_record_check(const void *record, size_t size, const char **why);

/** A string of a checked record. */
const char *ph_record_text(const struct ph_record_pm *record, uint32_t reference);

/**
 * Note which descriptors this process was given, before it opens any: the program gets those
 * that it had been given itself.
 */
void ph_recovery_note_given(void);

/**
 * Whether this machine can continue the program: processor, files, descriptors, and that the
 * program is not running any more. Changes nothing.
 * @return 0, PH_ECPU, PH_EFILES, PH_ERUNNING.
 */
int ph_recovery_check(struct ph_recovery *r);

/** Parts of that. Whether the program's file locks are free. @return 0, PH_EFILES. */
int ph_recovery_check_locks(struct ph_recovery *r);

/** Whether SQLite databases can be gone on with (databases.c). @return 0, PH_EFILES. */
int ph_recovery_check_databases(struct ph_recovery *r);

/** Whether @p f is a file of an SQLite database, which must not be cut back. */
bool ph_recovery_of_database(const struct ph_recovery *r, const struct ph_file_pm *f);

/**
 * fork, so that the child has a monotonic clock that has not gone back since the epoch. Where
 * that cannot be had, r->detail says why, and the child is an ordinary one; else it is empty.
 * @return as fork.
 */
pid_t ph_recovery_fork(struct ph_recovery *r);

/**
 * Give this process the program's descriptors, at their numbers, with files cut back and
 * positioned. All other descriptors but those of @p keep (n entries) are closed; none of these
 * may be a number of the program's. Called in the child.
 * @return 0, PH_EFILES.
 */
int ph_recovery_open_files(struct ph_recovery *r, const int *keep, size_t n);

#endif
