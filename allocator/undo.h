/* SPDX-License-Identifier: MIT */
/*
 * undo.h - what a program has cut off its files, kept while an epoch needs it
 *
 * A file that is longer than at the epoch is cut back by recovery; of one that the program has
 * made shorter, what was cut off must have been kept. So before a file that was open at an
 * epoch loses bytes, these are written to a file of their own, in the directory
 * POOL.undo beside the pool: by the program (pyhook/undo.c), since it happens between epochs.
 * Recovery undoes the cuts, the newest first (recovery/undo.c).
 *
 *   U1  A file is called EPOCH-N: N-th cut after that epoch. To undo it: make the file as long
 *       as `from`, then as `to`, and write the pieces. So undoing twice is undoing once.
 *       With PH_UNDO_RENAMED or PH_UNDO_REMOVED it is not the file's bytes that were lost, but
 *       its name: two names follow each other as the path, what it had been called and what it
 *       was called then, "" if it was removed. A removed file is linked here as EPOCH-N.file.
 *   U2  It is durable before the program's file is cut, and whole if its checksum is right: one
 *       that is not belongs to a cut that has not happened.
 *   U3  It is removed when epoch EPOCH cannot be recovered any more, by the keeper; or when a
 *       recovery has gone back to before it. A pool may hold hundreds of epochs; the bytes are
 *       kept for the newest ones alone, as many as the pool has promised to keep, and of the
 *       others is only noted that they were cut (PH_UNDO_FORGOTTEN): recovery refuses those.
 */
#ifndef PH_UNDO_H
#define PH_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PH_UNDO_MAGIC UINT64_C(0x324f444e55594850) /* "PHYUNDO2" */
#define PH_UNDO_MAX   4096                         /* bytes of the directory's path */

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
#define PH_UNDO_RENAMED   2u
#define PH_UNDO_REMOVED   4u

#define PH_UNDO_LINK      ".file"

struct ph_undo_piece_pm {
    uint64_t offset, size; /* bytes */
};
#define PH_UNDO_END  UINT64_MAX

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

/* ---- undo.c, in the keeper and in recovery ---------------------------------------------- */

/** The directory that belongs to the pool at @p path; "" if its name would be too long. */
void ph_undo_directory(const char *path, char buf[PH_UNDO_MAX]);

/** What the name of a file there says. @return whether it is one, and no link. */
bool ph_undo_name(const char *name, uint64_t *epoch, uint64_t *number);

/** Remove what belongs to epochs from @p first to @p last, and the directory if it is empty. */
void ph_undo_remove(const char *directory, uint64_t first, uint64_t last);

/** Keep of what belongs to these epochs only that there was a cut. */
void ph_undo_forget(const char *directory, uint64_t first, uint64_t last);

/** Remove all that belongs to the pool at @p path, which is done with. */
void ph_undo_clear(const char *path);

/**
 * Copy what belongs to the pool at @p path to where it belongs to one at @p to, durably. There
 * may be nothing. @return 0; PH_EUSAGE: there is something at @p to; or errno's PH_E*, the
 * directory that was to be made in @p failed.
 */
int ph_undo_copy(const char *path, const char *to, char failed[PH_UNDO_MAX]);

#endif
