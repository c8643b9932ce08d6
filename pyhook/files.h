/* SPDX-License-Identifier: MIT */
/*
 * files.h - what the parts of the capture of descriptors share
 *
 * The rules of agent_internal.h hold: other threads are parked, so no lock, no malloc.
 */
#ifndef PH_FILES_H
#define PH_FILES_H

#include "agent_internal.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#define PH_MEMORY_DEVICES 1 /* major number of null, zero, random */

/** Whether it is worth a system call to ask. */
static inline bool ph_files_may_be_terminal(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && major(st->st_rdev) != PH_MEMORY_DEVICES;
}

/** The descriptors found so far. */
struct ph_file_pm *ph_files_all(size_t *n);

/**
 * The next description of an inode, of each the lowest descriptor.
 * @param place PH_FILES_FIRST at first. @return NULL: there is none any more
 */
struct ph_file_pm *ph_files_next_of(uint64_t dev, uint64_t ino, size_t *place);
#define PH_FILES_FIRST SIZE_MAX

/** Room for @p size more bytes of @p f's data, zeroed. All of one descriptor's in a row. */
void *ph_files_data(struct ph_file_pm *f, size_t size);

/** Room for a chunk of @p f's data (struct ph_chunk_pm). @return where its bytes go. */
/* (NULL: it does not fit, and the epoch will be refused.) */
void *ph_files_chunk(struct ph_file_pm *f, uint64_t offset, size_t size);

/** The kernel's text about @p fd; "" if there is none. Good until the next one is read. */
const char *ph_files_info(int fd);

/** Whether opening @p name gives the very file, as it was or will be. */
bool ph_files_has_name(const struct ph_file_pm *f, const char *name);

/** When its content was changed, as the record has it. */
uint64_t ph_files_mtime(const struct stat *st);

/* ---- files_list.c --------------------------------------------------------------------- */

/** The numbers of the program's descriptors, ascending, at most @p max.
 *  @return how many; -1 with errno. */
long ph_files_numbers(int *list, size_t max);

/** F_GETFD of one of them. */
uint32_t ph_files_flags(int fd);

/** What the kernel calls @p fd, of which fstat says @p st. @return its length; 0: unknown. */
size_t ph_files_name(int fd, const struct stat *st, char *name, size_t size);

/** All have been asked about. */
void ph_files_named(void);

/* ---- files_cannot.c ----------------------------------------------------------------- */

/** @p f cannot come back: say so once, or in strict mode fail the epoch. */
void ph_files_dead(struct ph_file_pm *f, const char *what);

/** The same of something about @p f, which comes back itself.
 *  @param advice goes on after "cannot come back". */
void ph_files_lost(const struct ph_file_pm *f, const char *what, const char *advice);

/** The same for what is no descriptor. */
void ph_files_cannot(const char *what, const char *advice);

/** Before and after all are looked at. @return whether the epoch fails for it. */
void ph_files_cannot_start(void);
bool ph_files_cannot_end(void);

/* ---- files_embed.c ------------------------------------------------------------------ */

/** The content of the file behind @p f, but for its holes, goes into the epoch. @param name as
 *  the kernel calls it. @return whether it could. */
bool ph_files_embed(struct ph_file_pm *f, const char *name);

/* ---- files_locks.c ------------------------------------------------------------------ */

/** Those that the program holds by @p f's descriptor. */
void ph_files_capture_locks(const struct ph_file_pm *f);

/** Whether closing another descriptor of the file of @p f would lose a lock of the process's,
 *  or opening it would break a lease. When all are known. */
bool ph_files_is_touchy(const struct ph_file_pm *f);

/* ---- files_identity.c --------------------------------------------------------------- */

/** When the file of @p fd was made, ns since 1970; 0: the file system does not tell. */
uint64_t ph_files_birth(int fd);

/** When all are known: by what recovery knows files again. */
void ph_files_identify(void);

/* ---- files_kept.c ------------------------------------------------------------------- */

/** Whether the program has said that recovery is to leave a file as it is: this one, or what
 *  has that absolute name. */
bool ph_files_is_kept(uint64_t dev, uint64_t ino, const char *path);
bool ph_files_is_kept_name(const char *path);

/* ---- files_durable.c ---------------------------------------------------------------- */

/** When all are known: what was written to is on its way to the disk before the epoch is. */
int ph_files_make_durable(uint64_t epoch);

/** Have the keeper make @p n descriptors, 64 at most, durable before it commits. @return
 * likewise */
int ph_files_send(uint64_t epoch, const int *fd, size_t n);

/* ---- files_inherit.c ---------------------------------------------------------------- */

/**
 * Whether it was there when the program started; f->detail receives as which number.
 * @param by_number only if it is still there under that number.
 */
bool ph_files_inherited(struct ph_file_pm *f, bool by_number);

/* ---- files_special.c ---------------------------------------------------------------- */

/** What is neither a file nor a socket; @p name as the kernel calls it. */
void ph_files_capture_special(struct ph_file_pm *f, const char *name);

/** When all are known: find the other ends of pipes and socketpairs. */
void ph_files_match_ends(void);

/* ---- files_socket.c ----------------------------------------------------------------- */

void ph_files_capture_socket(struct ph_file_pm *f);

/** When all are known: who is paired with whom, and what waits in them. */
void ph_files_match_sockets(void);

/** Words for people about socket @p fd: its kind, its peer. @return buf. */
char *ph_files_socket_name(int fd, char *buf, size_t size);

/* ---- terminal.c --------------------------------------------------------------------- */

/** At the start: what the terminal is like before the program sets anything. */
void ph_terminal_start(void);

/** Before an epoch's pages are copied: what it is like now. */
void ph_terminal_note(void);

/* ---- watches.c ---------------------------------------------------------------------- */

/** The path by which the program asked for a watch of this inode; NULL: not known, or it has
 *  another file by now. */
const char *ph_watches_path(uint64_t dev, uint64_t ino);

/* ---- segments.c --------------------------------------------------------------------- */

/** Whether the program has made the shared memory of this path, and not removed it since. */
bool ph_segments_made(const char *path);

/** The descriptor and the number of the child that removes segments when the program is gone,
 * as of the epoch that is being taken. @return -1: there is none. */
int ph_segments_tracker(pid_t *pid);

/** The path of the semaphore that is mapped at @p start (the kernel knows another: glibc makes
 * it under a temporary name); NULL: none that the program has made and not removed since. */
const char *ph_segments_semaphore(uint64_t start, char *path, size_t size);

#endif
