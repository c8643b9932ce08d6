/* SPDX-License-Identifier: MIT */
/* undo.h - what the program cuts off its files is kept; see undo.c */
#ifndef PH_PYHOOK_UNDO_H
#define PH_PYHOOK_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct ph_undo_open {
    bool inside, makes;
    bool at_end; /* so what is written first overwrites nothing */
};

/**
 * Before a call that changes a file, by descriptor or by path: with openat's @p flags, to
 * @p length bytes, or @p n bytes at @p at, < 0: where the descriptor is. What an epoch needs of
 * it is kept. Until ph_undo_after has been given the result no epoch is taken; errno is as
 * before.
 */
struct ph_undo_open ph_undo_before_open(int dir, const char *path, int flags);
struct ph_undo_open ph_undo_before_stream(const char *path, int flags);
bool ph_undo_before_truncate(const char *path, off_t length);
bool ph_undo_before_ftruncate(int fd, off_t length);
bool ph_undo_before_write(int fd, off_t at, size_t n);
bool ph_undo_before_overwriting(int fd, const struct stat *st, uint64_t from, uint64_t to);
void ph_undo_after(bool inside);
void ph_undo_after_open(struct ph_undo_open o, int fd);

/** Before a call that takes a name, or gives it to another: the same. */
bool ph_undo_before_unlink(int dir, const char *path, bool directory);
bool ph_undo_before_rename(int from_dir, const char *from, int to_dir, const char *to);

/** Before a call that makes a thing of this type of st_mode, or gives a file one more name. */
bool ph_undo_before_making(int dir, const char *path, mode_t type);
bool ph_undo_before_link(int from_dir, const char *from, int dir, const char *path, int flags);

/** After it. @param path NULL: it has failed. */
void ph_undo_after_making(bool inside, int dir, const char *path);

/** Whether a file has no name any more but the one by which it is kept. */
bool ph_undo_is_removed(uint64_t dev, uint64_t ino);

/** An epoch begins, and ends: no file is changed meanwhile. */
void ph_undo_epoch_begin(void);
void ph_undo_epoch_end(void);

/** With all threads parked: an epoch is about to be there. @return 0, PH_E* */
int ph_undo_capture_end(void);

/* ---- undo.c, for undo_names.c and undo_store.c ---------------------------------------- */

/** The epoch that things belong to; 0: there is none. */
uint64_t ph_undo_newest(void);

/** No epoch from now on, until ph_undo_after. @return false: there is none to keep for. */
bool ph_undo_enter(void);

/** Whether recovery would bring the file back that is called this. */
bool ph_undo_concerns(const struct stat *st, const char *path);

/** Whether the program has made it since the newest epoch, so that no epoch needs it. */
bool ph_undo_is_made(const struct stat *st);

/** The program is about to make this, a file of that type. */
void ph_undo_makes(int dir, const char *path, mode_t type);

/** The program has just made this: a file of any kind, or a directory. */
void ph_undo_made(const struct stat *st, uint64_t birth_ns, const char *path);

/* ---- undo_sure.c -------------------------------------------------------------------- */

/** Whether a write where @p fd stands is known to overwrite nothing that is needed. */
bool ph_undo_is_sure(int fd);

/** The present turn; what is found out in it about a descriptor holds as long as it lasts. */
uint64_t ph_undo_turn(void);
void ph_undo_make_sure(int fd, uint64_t turn);

/** A number may stand for another description, or be positioned elsewhere. */
void ph_undo_new_turn(void);

/** Bytes @p from to @p to of the file of @p fd are about to be overwritten. */
void ph_undo_keep_middle(int fd, const struct stat *st, uint64_t from, uint64_t to);

/* ---- undo_mapped.c ------------------------------------------------------------------ */

/** During an epoch: name what ph_undo_keep_mapped will not keep. */
void ph_undo_mapped_too_large(void);

/** Before it is there, so that none is without what it needs: what the program may write to by
 *  its mappings. */
void ph_undo_keep_mapped(void);

/* ---- undo_store.c ------------------------------------------------------------------- */

struct ph_undo_note {
    int kind; /* enum ph_undo_kind */
    int link; /* PH_UNDO_REMOVED: a descriptor of the file */
    uint64_t dev, ino, birth_ns, value;
    uint32_t sum;
    const char *path, *to;
};

struct ph_undo_bytes {
    const struct stat *st; /* the file */
    int fd;                /* to read it by */
    bool own;              /* that is ours, and can be positioned */
    bool middle;           /* they are overwritten, not cut off */
    bool large;            /* not worth a copy, only a clone */
    uint64_t from, to;     /* bytes */
};

/** Write one note, or one file of bytes, durably as U2 has it. @return 0, -errno. */
long ph_undo_note(const struct ph_undo_note *n);
long ph_undo_write(const struct ph_undo_bytes *what, const char *path);

/** With all threads parked: what is written in between becomes durable with the epoch that is
 *  being captured, by the keeper. @return 0, PH_E*: not everything will. */
void ph_undo_later_begin(void);
int ph_undo_later_end(void);

/** The name of the note of what this thread is about to make, in this call; "": it has none. */
extern __thread char ph_undo_making[];

/** The name of what @p fd is open on. @return whether it is known, and fits. */
bool ph_undo_path_of(int fd, char *buf, size_t size);

/** Of a name that may be nobody's yet, or a symbolic link. @param dev its directory's; or NULL.
 *  @return whether it fits. */
bool ph_undo_absolute(char *buf, size_t size, int dir, const char *path, uint64_t *dev);

/** Say once that this is not kept. */
void ph_undo_complain(const char *what, const char *path, long err);

#endif
