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
#include "allocator/undo.h"
#include "pyhook/record.h"

#include <limits.h>
#include <sys/types.h>

struct statx;
struct ph_place; /* plan.h */
struct ph_cut;
struct ph_located;

struct ph_recovery {
    const struct ph_record_pm *record;
    struct ph_pool *pool;          /* for copies of mapped files; NULL: it has none */
    int pool_fd;                   /* in the child: the pool */
    const struct ph_stored **copy; /* of each vma: what takes the place of its file, or NULL */
    char **moved;        /* of each vma: where the program has left its file since; or NULL */
    size_t nmoved;       /* as a rule none, and there may be many mappings */
    struct ph_cut *cut;  /* in the child: files to be cut back, when all memory is right */
    uint64_t ncut;       /* at most as many as the record has files */
    bool count_downtime; /* in monotonic clocks */
    bool keep_files;     /* do not cut files back to their length at the epoch */
    const char **keep;   /* nor these: paths or patterns (glob(7)) */
    size_t nkeep;
    const char *pool_path;
    bool discards;         /* epochs that are later than this one */
    uint64_t pool_id;      /* half of it */
    struct ph_undo **undo; /* what is to be undone, newest first (undo.c) */
    size_t nundo;
    uint64_t undo_number; /* the highest one there is, or is to be */
    bool undo_forgotten;  /* some of it is there no more */
    bool undo_kept;       /* some of it says what is to be left as it is */
    char undo_directory[PH_UNDO_MAX];
    char undo_synced[PATH_MAX];  /* a directory that is to be synced */
    uint64_t put_aside;          /* files */
    struct ph_located **located; /* files that are not what and where they were (locate.c) */
    size_t nlocated;
    char detail[4352]; /* about the last failure */
    char note[4352];   /* what a person should know although recovery goes on; "": nothing */
};

/** Hold @p record against R1 to R8 of record.h. @return 0, PH_ECORRUPT, PH_ENEWER. */
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

/** Whether @p f is left as it is: the program, or whoever recovers it, has said so. */
bool ph_recovery_keeps(const struct ph_recovery *r, const struct ph_file_pm *f);
bool ph_recovery_keeps_path(const struct ph_recovery *r, const char *path);

/** Parts of that. Whether the program's file locks are free. @return 0, PH_EFILES. */
int ph_recovery_check_locks(struct ph_recovery *r);

/** Whether the processor has what the program may rely on. @return 0; PH_ECPU: r->detail names
 *  what is missing. */
int ph_recovery_check_cpu(struct ph_recovery *r);

/** Whether SQLite databases can be gone on with (databases.c). @return 0, PH_EFILES. */
int ph_recovery_check_databases(struct ph_recovery *r);

/** Whether @p f is a file of an SQLite database, which must not be cut back. */
bool ph_recovery_of_database(const struct ph_recovery *r, const struct ph_file_pm *f);
bool ph_recovery_path_of_database(const char *path);

/** The database that a journal at @p path belongs to; @p path itself: none. */
void ph_recovery_database_of(const char *path, char base[PATH_MAX]);

/** Part of that: where the files are by now (locate.c). @return 0, PH_EFILES, PH_ENOMEM. */
int ph_recovery_locate(struct ph_recovery *r);

/** Then: the name of @p f's file; whether it is another one than the program had. */
const char *ph_recovery_path(const struct ph_recovery *r, const struct ph_file_pm *f);
bool ph_recovery_is_stranger(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Whether what is at @p path is the inode that was made at @p birth_ns, or 0. @param path "":
 *  what descriptor @p dir is open on. @param sx what there is. */
bool ph_recovery_is_inode(uint64_t ino, uint64_t birth_ns, int dir, const char *path,
                          struct statx *sx);

/** Whether that is the file that @p f had. */
bool ph_recovery_is_very_file(const struct ph_file_pm *f, int dir, const char *path);

/** Whether that is a copy of the file that @p f had (L3 in locate.c). */
bool ph_recovery_is_copy_at(const struct ph_recovery *r, const struct ph_file_pm *f,
                            const char *path);

/** Bytes that the names of such files, and of mapped ones, take, for ph_recovery_detach. */
size_t ph_recovery_located_size(const struct ph_recovery *r);
size_t ph_recovery_moved_size(const struct ph_recovery *r);

/** The name of the file with this number, if it has another one than at the epoch; NULL. */
const char *ph_recovery_new_name(const struct ph_recovery *r, uint64_t dev, uint64_t ino);

/** A line for each file that has another name by now. */
void ph_recovery_say_located(const struct ph_recovery *r, const char *command);

void ph_recovery_locate_free(struct ph_recovery *r);

/** Part of that: read what the program has done to its files since the epoch. @return 0,
 *  PH_EFILES, PH_EOWNER (not ours alone), PH_ENOMEM. */
int ph_recovery_undo_read(struct ph_recovery *r);

/** The size that @p f, which has @p size bytes, will have when that is undone. */
uint64_t ph_recovery_undone_size(const struct ph_recovery *r, const struct ph_file_pm *f,
                                 uint64_t size);

/** Whether there are cuts of @p f to be undone. @param copied whether they are not where they
 *  were kept. */
bool ph_recovery_is_cut(const struct ph_recovery *r, const struct ph_file_pm *f, bool *copied);

/** Whether cuts of @p f have been forgotten: it cannot be as it was. */
bool ph_recovery_undo_forgotten(const struct ph_recovery *r, const struct ph_file_pm *f);

/** Undo the cuts: all memory is right, and the program waits. @return 0, PH_EFILES. */
int ph_recovery_undo(struct ph_recovery *r);

/** Whether bytes in the middle of @p f are among it. */
bool ph_recovery_undo_overwritten(const struct ph_recovery *r, const struct ph_file_pm *f);

/** In a copy of the record: what the restorer is to open, when that is done. */
void ph_recovery_undo_postpone(const struct ph_recovery *r, struct ph_record_pm *record);

/** Whether the restorer is to enter the program's working directory. */
bool ph_recovery_enters_late(const struct ph_recovery *r);

void ph_recovery_undo_free(struct ph_recovery *r);

/**
 * Part of that, and before the plan is made: whether the mapped files are there, or the pool
 * has copies; fills r->copy and r->moved. @return 0, PH_EFILES, PH_ECORRUPT, PH_EIO, PH_ENOMEM.
 */
int ph_recovery_check_mapped(struct ph_recovery *r);
void ph_recovery_mapped_free(struct ph_recovery *r);

/** A line on stderr about the copies that take the place of files, if there are any. */
void ph_recovery_say_copies(const struct ph_recovery *r, const char *command);

/** Where everything comes from: the view's runs, all to be read, and the copies. Freed by the
 * caller; NULL: out of memory. */
struct ph_place *ph_recovery_places(const struct ph_recovery *r, const struct ph_view *view,
                                    size_t *n);

/**
 * Have large stretches of the heap mapped instead of read, if they are at least @p least pages
 * in all. What is mapped goes from *place (and *n) to *mapped, with the checksums' indexes, and
 * pieces that say how to map it come in its stead.
 * @return how many pages are to be mapped; 0: nothing has changed.
 */
uint64_t ph_recovery_map(const struct ph_record_pm *record, struct ph_place **place, size_t *n,
                         struct ph_place **mapped, size_t *nmapped, uint64_t least);

/** In a copy of the record: mappings whose file a copy replaces are files' no more. */
void ph_recovery_detach(const struct ph_recovery *r, struct ph_record_pm *record, size_t size);

/**
 * Which files the program has mapped privately. @param bytes of those that the pool has a copy
 * of. @param missing how many it has none of; @param first the first of them. @return how many
 * in all.
 */
size_t ph_recovery_needed(struct ph_pool *pool, const struct ph_record_pm *record,
                          uint64_t *bytes, size_t *missing, const char **first);

/**
 * Give this process the program's descriptors, at their numbers, with files positioned; those
 * to be cut back are listed in r->cut. All other descriptors but those of @p keep (n entries)
 * are closed; none of these may be a number of the program's. Called in the child.
 * @return 0, PH_EFILES.
 */
int ph_recovery_open_files(struct ph_recovery *r, const int *keep, size_t n);

/** The pool's copy that takes the place of the file of @p f, which is mapped as well and open
 *  to be read (libffi keeps itself open); NULL: none does. After ph_recovery_check_mapped. */
const struct ph_stored *ph_recovery_copy_of(const struct ph_recovery *r,
                                            const struct ph_file_pm *f);

/** Whether the program's working directory is there, or was removed before the epoch already.
 *  @return 0, PH_EFILES. */
int ph_recovery_check_directory(struct ph_recovery *r);

/** Make it this process's. @return 0, PH_EFILES. */
int ph_recovery_enter_directory(struct ph_recovery *r);

#endif
