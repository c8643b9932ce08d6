/* SPDX-License-Identifier: MIT */
/*
 * undo.h - what a program does to files between two epochs, kept while an epoch needs it
 *
 * A recovered program does it all again: it appends, cuts, overwrites, makes, renames and
 * removes. So before it does, the program notes in a directory of the pool's, POOL.undo, what
 * is needed to have the files as they were at the epoch (pyhook/undo.c), and recovery undoes
 * it, the newest first (recovery/undo.c).
 *
 *   U1  A name begins with EPOCH-N: the N-th thing done since that epoch; N grows in the order
 *       of what was done, over recoveries, too. A note is a text,
 *       "KIND:LIFE:DEV:INO:BIRTH:VALUE:SUM:LENGTH:PATH1PATH2", decimal; LIFE is the last N
 *       before the program was started or recovered, LENGTH is that of PATH1. It is one more
 *       name of an empty file: "EPOCH-N:TIME:" and the text, with backslashes for
 *       slashes, since making an inode costs more than anything else here. A text that is too
 *       long for that, or has a backslash, is what a symbolic link EPOCH-N points to. A
 *       regular file EPOCH-N holds bytes that a file has lost, or is about to: to give them
 *       back, make the file as long as `from`, then as `to`, and write the pieces. Undoing
 *       twice is undoing once.
 *   U2  It is there before the thing is done, and as durable. What is in a regular file has
 *       been synced, and is whole if its checksum is right; what is mapped at an epoch is
 *       synced by the keeper before it commits that, since the one before has its own. A note
 *       is one change of a directory, and journaling file systems keep these in order, so it
 *       is waited for only where that is not known. What the program makes has no inode
 *       before, so it is noted that it will be made, and then, in the same note, what it is.
 *       Between the two it is empty.
 *   U3  The keeper removes what belongs to epochs that cannot be recovered any more; so does a
 *       recovery that has gone back to before them. A pool may hold hundreds of epochs: all
 *       this is kept for the newest ones alone, as many as the pool has promised to keep. Of
 *       the others is only noted that there was something (PH_UNDO_FORGOTTEN, EPOCH-0).
 *   U4  The directory belongs to the pool whose id is in the name of that empty file
 *       (PH_UNDO_BASE), if it has one: a pool may have been renamed since, and another have
 *       got its name. Nobody else writes or removes there.
 *   U5  Whatever is there, that file is: the keeper, to remove the directory when it is empty,
 *       first gives it another name (PH_UNDO_GOING) and then looks again; the program looks
 *       for it after it has made something, which is one more name of it, or made anew if the
 *       file was not there. One of the two sees what the other has done.
 */
#ifndef PH_UNDO_H
#define PH_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PH_UNDO_MAGIC UINT64_C(0x334f444e55594850) /* "PHYUNDO3" */
#define PH_UNDO_MAX   4096                    /* bytes of the directory's path, of a note */
#define PH_UNDO_PATH  (PH_UNDO_MAX / 2 - 128) /* bytes of a path in a note, its end too */

/** What a note tells that the program has done. */
enum ph_undo_kind {
    PH_UNDO_BYTES = 'b',          /* of regular files alone: taken bytes from a file */
    PH_UNDO_OPENED = 'o',         /* opened a file to write; VALUE: its length until then */
    PH_UNDO_MAKES = 'p',          /* is about to make one; VALUE: its type of st_mode */
    PH_UNDO_MADE = 'm',           /* made a file of any kind, or given it one more name */
    PH_UNDO_MADE_DIRECTORY = 'M', /* made a directory */
    PH_UNDO_RENAMED = 'r',        /* from PATH1 to PATH2 */
    PH_UNDO_REMOVED = 'd',        /* removed PATH1; the file is linked here as EPOCH-N.file */
    PH_UNDO_REMOVED_DIRECTORY = 'D', /* VALUE: its mode */
    PH_UNDO_KEPT = 'k', /* said that a file, or if INO is 0 a name, is to be left as it is */
    PH_UNDO_LIFE = 'l', /* nothing: it has been recovered to this epoch, all before is undone */
};

/* Host byte order. The path follows, padded to 8; then the pieces, each with its bytes behind
 * it, padded to 8; the last one has offset PH_UNDO_END, and as its size the checksum of all
 * before. */
struct ph_undo_pm {
    uint64_t magic, epoch;
    uint64_t from, to; /* bytes of the file: what was cut off */
    uint64_t dev, ino; /* the file, as at the epoch; the path is for people */
    uint64_t self;     /* inode of this one here: another one is a copy */
    uint32_t path_size, flags;
};
_Static_assert(sizeof(struct ph_undo_pm) == 64, "ph_undo_pm is part of the format");

#define PH_UNDO_FORGOTTEN 1u /* what follows the path is gone */
#define PH_UNDO_MIDDLE    2u /* bytes that were overwritten: the file's length stays */
#define PH_UNDO_CLONED    4u /* no pieces: blocks shared with the file, from PH_UNDO_CLONE on */
#define PH_UNDO_CLONE     (UINT64_C(1) << 16) /* a multiple of any file system's blocks */

#define PH_UNDO_BASE      "note-" /* and the first half of the pool's id, 16 digits */
#define PH_UNDO_GOING     '~'     /* behind that name: the keeper is about to remove it */
#define PH_UNDO_LINK      ".file"
#define PH_UNDO_ASIDE     ".aside" /* what recovery took from a file, or a file it removed */

struct ph_undo_piece_pm {
    uint64_t offset, size; /* bytes */
};
#define PH_UNDO_END UINT64_MAX

static inline const struct ph_undo_piece_pm *ph_undo_first_piece(const struct ph_undo_pm *h)
{
    return (const void *)((const char *)(h + 1) +
                          ((h->path_size + UINT64_C(7)) & ~UINT64_C(7)));
}

static inline const struct ph_undo_piece_pm *
ph_undo_next_piece(const struct ph_undo_piece_pm *p)
{
    return (const void *)((const char *)(p + 1) + ((p->size + 7) & ~UINT64_C(7)));
}

#define PH_UNDO_SEED UINT64_C(0xcbf29ce484222325)

/** The checksum @p hash, with @p n more words. */
static inline uint64_t ph_undo_hash(uint64_t hash, const uint64_t *word, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ word[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return hash;
}

/** How much at the end of @p path makes it one of the files that SQLite has beside a database,
 * which live on their own; 0: it is none. */
static inline size_t ph_undo_database_suffix(const char *path)
{
    static const char *const suffix[] = {"-journal", "-wal", "-shm"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof suffix / sizeof suffix[0]; i++) {
        size_t n = strlen(suffix[i]);
        if (length > n && strcmp(path + length - n, suffix[i]) == 0)
            return n;
    }
    return 0;
}

/* ---- undo.c, in the keeper and in recovery ---------------------------------------------- */

/** The directory that belongs to the pool at @p path; "" if its name would be too long. */
void ph_undo_directory(const char *path, char buf[PH_UNDO_MAX]);

/** What the name of a note or a file of bytes says. @return whether it is one. */
bool ph_undo_name(const char *name, uint64_t *epoch, uint64_t *number);

/** The pool that a directory belongs to (U4); 0: any, or there is no directory. */
uint64_t ph_undo_owner(const char *directory);

/** In the directory of @p pool, 0: whoever's, remove what belongs to epochs from @p first to
 *  @p last, and the directory if it is empty. */
void ph_undo_remove(const char *directory, uint64_t pool, uint64_t first, uint64_t last);

/** Keep of what belongs to these epochs only that there was something. */
void ph_undo_forget(const char *directory, uint64_t pool, uint64_t first, uint64_t last);

/** Remove all that belongs to the pool at @p path, which is done with. */
void ph_undo_clear(const char *path);

/**
 * Copy what belongs to the pool at @p path to where it belongs to one at @p to, durably. There
 * may be nothing. @return 0; PH_EUSAGE: there is something at @p to; or errno's PH_E*, the
 * directory that was to be made in @p failed.
 */
int ph_undo_copy(const char *path, const char *to, char failed[PH_UNDO_MAX]);

#endif
