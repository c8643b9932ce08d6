/* SPDX-License-Identifier: MIT */
/*
 * pool.h - the pool: one file that holds the epochs of one program
 *
 * Used by the keeper (which writes) and by recovery (which reads). The pool knows pages, not
 * processes: an epoch is a set of changed 4 KiB pages, a set of forgotten pages, and a record,
 * an opaque blob that the caller makes and understands. An epoch is atomic and checksummed; it
 * exists from the moment ph_pool_commit returns 0 and not before.
 *
 * Caveats: one writer at a time, enforced by libpmemobj's flock; not to be used across fork;
 * a failed write makes the epoch in progress fail, never a committed one. All functions may be
 * called from one thread only, unless said otherwise (migration runs in a thread of its own,
 * inside).
 */
#ifndef PH_POOL_H
#define PH_POOL_H

#include "error.h"
#include "layout.h"

#include <linux/limits.h> /* also for the restorer, which has no libc */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ph_pool;
struct ph_view;
struct ph_stored;
struct ph_sum_pm;

#define PH_LABEL_MAX   64  /* bytes of an epoch's label, with the terminating 0 */
#define PH_COMMAND_MAX 512 /* bytes of the program's command line kept, likewise */

struct ph_pool_options {
    uint64_t size; /* logical size of the file in bytes; 0: 4 x physical memory, >= 64 GiB */
    uint32_t keep; /* epochs that stay recoverable, at least 2; 0: 2 */
    const char *command; /* the program's command line, for people; may be NULL */
};

enum ph_pool_mode {
    PH_POOL_READ,  /* epochs can be listed and read; the file is not written to */
    PH_POOL_WRITE, /* epochs can be appended too; refused with PH_EBUSY while another does */
};

enum ph_pool_state { PH_POOL_RUNNING, PH_POOL_FINISHED };

struct ph_pool_info {
    uint64_t id; /* half of it */
    enum ph_pool_state state;
    int32_t exit_status; /* of a finished program */
    uint64_t created;    /* CLOCK_REALTIME, nanoseconds */
    uint64_t newest;     /* number of the newest committed epoch; 0: none */
    uint64_t oldest;     /* number of the oldest recoverable epoch; 0: none */
    uint64_t home_epoch; /* what the home image holds; 0: nothing yet */
    uint32_t keep;
    uint64_t size;       /* logical size of the file, bytes */
    uint64_t allocated;  /* bytes the file takes on disk */
    uint64_t log_bytes;  /* bytes of the log in use */
    uint64_t home_pages; /* pages in the home image */
    uint64_t pages_appended, pages_migrated, pages_filtered; /* since opened */
    char command[PH_COMMAND_MAX];
};

/**
 * Get ready for a pool that is made when its first epoch begins. What can be known to be in its
 * way is found out now: limits, the disk's space. Nothing has the name @p path yet, or
 * something else still has it.
 * @return 0, PH_EACCES, PH_EFULL, PH_EPOOLSIZE (too small), PH_EIO, PH_ENOMEM (addresses or a
 *         thread). On failure no file is left.
 */
int ph_pool_prepare(struct ph_pool **out, const char *path, const struct ph_pool_options *opt);

/** Take its name, which must be free by now. @return 0, PH_EACCES, PH_EUNFINISHED: it is not.
 */
int ph_pool_take(struct ph_pool *pool);

/** Both at once. @return likewise; on failure no file is left. */
int ph_pool_claim(struct ph_pool **out, const char *path, const struct ph_pool_options *opt);

/** The same, and make the pool at once. @return likewise. */
int ph_pool_create(struct ph_pool **out, const char *path, const struct ph_pool_options *opt);

/** Whether somebody has renamed the pool; @p name receives what it is called by now. */
bool ph_pool_renamed(const struct ph_pool *pool, char name[PATH_MAX]);

/** Whether there is no more than a claim: nothing but ph_pool_begin can be done with it. */
bool ph_pool_is_claim(const struct ph_pool *pool);

/**
 * Make way for a new pool at @p path: remove a finished run, or one without epochs; with
 * @p unfinished also one that could be continued, and a damaged one.
 * @return 0 (also if there is nothing), PH_EUNFINISHED, PH_EBUSY, PH_ENOTPOOL and the other
 * failures of ph_pool_open.
 */
int ph_pool_clear(const char *path, bool unfinished);

/**
 * Open the pool at @p path. Never changes a committed epoch, whatever state a crash left.
 * Bad input never crashes: @return 0, PH_ENOENT, PH_EACCES, PH_EOWNER (another user's, or group
 * or others can write, or a symbolic link), PH_ENOTPOOL, PH_ETRUNC, PH_ENEWER, PH_ECORRUPT,
 * PH_EBUSY, PH_EIO, PH_ENOMEM.
 */
int ph_pool_open(struct ph_pool **out, const char *path, enum ph_pool_mode mode);

/** Wait for migration to stop, discard an epoch in progress, close. NULL is allowed. */
void ph_pool_close(struct ph_pool *pool);

/** Close a pool that is open for writing, and remove it; but not what has its name by now. */
void ph_pool_remove(struct ph_pool *pool);

void ph_pool_get_info(struct ph_pool *pool, struct ph_pool_info *out);

/** A text about the last failure on @p pool: the system's reason, the file. Never NULL. */
const char *ph_pool_error_detail(const struct ph_pool *pool);

/** The file descriptor of the pool, readable; page data of a view is read through it. */
int ph_pool_fd(const struct ph_pool *pool);

/* ---- writing an epoch (PH_POOL_WRITE) ------------------------------------------------ */

/** Start epoch @p number, greater than the newest one. The first one makes the pool, if it has
 * only been claimed; if that fails a later one tries again. @return 0, PH_EUSAGE; of the making
 * PH_EFULL, PH_EPOOLSIZE, PH_EACCES, PH_EBUSY (the name has been taken), PH_EIO, PH_ENOMEM. */
int ph_pool_begin(struct ph_pool *pool, uint64_t number);

/**
 * In the epoch that has just begun a page may be appended again: the last version counts, and
 * one that is not present at the end does not. For pages that were copied while they could
 * still change. Costs a table with 8 to 16 bytes a page. @return 0, PH_EUSAGE.
 */
int ph_pool_allow_again(struct ph_pool *pool);

/**
 * Add @p n changed pages: the page at address addr[i] (page-aligned, each at most once an
 * epoch, but after ph_pool_allow_again) now holds the 4096 bytes at page[i]. Pages that hash
 * equal to the stored ones are dropped. The others are written meanwhile and afterwards: their
 * memory must not change until ph_pool_written returns at least what ph_pool_appended returns
 * after this call, or until commit or abort returns. It should be page-aligned.
 * @param written if not NULL, receives how many were not dropped.
 * @return 0, PH_EFULL, PH_EPOOLSIZE, PH_EIO, PH_ENOMEM; after a failure only ph_pool_abort.
 */
int ph_pool_append(struct ph_pool *pool, const uint64_t *addr, const void *const *page,
                   size_t n, size_t *written);

/** Writes asked for, and written, since the pool was opened: see ph_pool_append. Those that are
 * dropped count as written. ph_pool_written may be called from any thread. */
uint64_t ph_pool_appended(struct ph_pool *pool);
uint64_t ph_pool_written(struct ph_pool *pool);

/** At most so many writes are pending; then append waits. */
#define PH_POOL_PENDING_MAX 1024

/** Have @p fn called, from any thread, whenever ph_pool_written has grown. */
void ph_pool_on_written(struct ph_pool *pool, void (*fn)(void *arg), void *arg);

/** Nothing more will be appended for a while: do not wait for more to write. @return 0, or why
 * what was appended could not be written, as ph_pool_append: nothing more may come before that
 * is known, since its memory is not given back. */
int ph_pool_push(struct ph_pool *pool);

/**
 * State what the program's memory consists of: @p n spans, ascending, not overlapping. Stored
 * pages outside of all of them are forgotten by this epoch: a later view reads them as absent
 * (zero). Pages inside that were never appended are absent as well. At most once an epoch;
 * without it nothing is forgotten.
 */
struct ph_page_span {
    uint64_t start, end; /* addresses, page-aligned */
};
int ph_pool_set_present(struct ph_pool *pool, const struct ph_page_span *span, size_t n);

/** Add @p size bytes to the epoch's record. Pieces are concatenated. */
int ph_pool_append_record(struct ph_pool *pool, const void *bytes, size_t size);

/**
 * Make the epoch durable: data and index, fdatasync, root record, fdatasync. When this returns
 * 0 the epoch survives a power cut. @param label may be NULL. @param time CLOCK_REALTIME,
 * nanoseconds.
 */
int ph_pool_commit(struct ph_pool *pool, const char *label, uint64_t time);

/** Discard the epoch in progress; the committed ones stay as they are. */
void ph_pool_abort(struct ph_pool *pool);

/** Mark the run as finished with @p exit_status. Durable on return. */
int ph_pool_finish(struct ph_pool *pool, int exit_status);

/** Drop all epochs after @p number, which must be recoverable. Durable on return. */
int ph_pool_rewind(struct ph_pool *pool, uint64_t number);

/* ---- files kept beside the epochs ----------------------------------------------------- */

/*
 * What the program has mapped from files is not in its epochs, only what it changed of it. So
 * copies of these files can be kept: a program is then recovered where they are missing or have
 * been replaced. They come second: where an epoch finds no room they are given up.
 */

/** Which file: what recovery knows of it. */
struct ph_file_id {
    const char *path;
    uint64_t size; /* bytes */
    uint64_t mtime_ns;
};

/** The stored copy of @p id, or NULL. Valid until a file is stored or the pool is closed. */
const struct ph_stored *ph_pool_file_find(const struct ph_pool *pool,
                                          const struct ph_file_id *id);

/** How many files there are, those not durable yet included; the i-th one. */
size_t ph_pool_files(const struct ph_pool *pool);
const struct ph_stored *ph_pool_file(const struct ph_pool *pool, size_t i);

/**
 * Store a file (PH_POOL_WRITE), in steps that may be taken between the calls that write an
 * epoch. begin; append in order, whole pages but for the last one; end. What is equal to a
 * stored content is not stored twice. Nothing of it exists before publish has returned 0, which
 * makes all ended files durable at once.
 * @return 0, PH_EFULL (also: the epochs need the room), PH_EPOOLSIZE, PH_EUNSUPPORTED (too
 * large), PH_EIO, PH_ENOMEM, PH_EUSAGE; after a failure of append or end only abort.
 */
int ph_pool_file_begin(struct ph_pool *pool, const struct ph_file_id *id);
int ph_pool_file_append(struct ph_pool *pool, const void *bytes, size_t size);
int ph_pool_file_end(struct ph_pool *pool);
void ph_pool_file_abort(struct ph_pool *pool);
int ph_pool_file_publish(struct ph_pool *pool);

const char *ph_stored_path(const struct ph_stored *file); /* for people: may be shortened */
uint64_t ph_stored_size(const struct ph_stored *file);    /* bytes */

/**
 * Where the content from byte @p at on, a multiple of a page, lies in the pool file.
 * @param npages receives how many pages lie there in a row; the last one is filled up with
 * zeros. @return the offset; 0 when @p at is not below the size.
 */
uint64_t ph_stored_place(const struct ph_stored *file, uint64_t at, uint64_t *npages);

/** Read the copy and compare it with its checksum. @return 0, PH_ECORRUPT, PH_EIO, PH_ENOMEM.
 */
int ph_stored_verify(struct ph_pool *pool, const struct ph_stored *file);

/** Whether the file open as @p fd begins like the copy (one page: where the build id of an
 * ELF file is), or, with @p whole, holds all of it. */
bool ph_stored_equals(struct ph_pool *pool, const struct ph_stored *file, int fd, bool whole);

/** Write a copy of the pool (PH_POOL_WRITE) without what no epoch and no file needs to @p path,
 * which must not exist. @return 0, PH_EUSAGE if it exists, PH_ENOEPOCH, PH_EACCES, PH_EFULL,
 * PH_EIO, PH_ENOMEM. */
int ph_pool_pack(struct ph_pool *pool, const char *path);

/* ---- reading --------------------------------------------------------------------- */

struct ph_epoch_info {
    uint64_t number;
    uint64_t time;        /* CLOCK_REALTIME, nanoseconds */
    uint64_t pages;       /* pages written by this epoch */
    uint64_t bytes;       /* bytes the epoch takes in the log: pages, index, record */
    uint64_t heir_bytes;  /* and of pages at the places that they will have at home */
    uint64_t record_size; /* bytes */
    char label[PH_LABEL_MAX];
};

/** The recoverable epochs, newest first, at most @p max. @return how many there are. */
size_t ph_pool_epochs(struct ph_pool *pool, struct ph_epoch_info *out, size_t max);

/** A run of pages, contiguous in memory and in the file. */
struct ph_run {
    uint64_t addr;   /* of the first page */
    uint64_t npages; /* at least 1 */
    uint64_t offset; /* of the first page's content in the pool file, page-aligned */
};

/**
 * The memory as of epoch @p number: runs ascending by address, each page at most once.
 * Checks the checksums of everything but the pages themselves.
 *
 * The runs of a writer's view stay right until it is freed; as migration rests meanwhile, free
 * it soon. Those of a PH_POOL_READ pool stay right while no writer moves info.home_epoch.
 * @return 0, PH_ENOEPOCH, PH_ECORRUPT, PH_EIO, PH_ENOMEM.
 */
int ph_pool_view(struct ph_pool *pool, uint64_t number, struct ph_view **out);
const struct ph_run *ph_view_runs(const struct ph_view *view, size_t *n);
/** The checksum of each page, in the order of the runs (pool_format.h). */
const struct ph_sum_pm *ph_view_sums(const struct ph_view *view);
/** The pages that may hold the owner of a lock (lock_shape.h), ascending. */
const struct ph_page_span *ph_view_marked(const struct ph_view *view, size_t *n);
/** The epoch's record; valid until the view is freed. */
const void *ph_view_record(const struct ph_view *view, size_t *size);
void ph_view_free(struct ph_view *view);

/**
 * Read every page of @p view and compare it with its checksum.
 * @param progress called now and then with bytes done and bytes in all; may be NULL.
 * @param bad_addr if not NULL, receives the address of the first damaged page.
 * @return 0, PH_ECORRUPT, PH_EIO, PH_ENOMEM; beside a writer also PH_ENOEPOCH, PH_EBUSY.
 */
int ph_view_verify(const struct ph_view *view,
                   void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                   uint64_t *bad_addr);

/**
 * The same for @p run, or a part of one, whose first page is the @p first-th of a writer's
 * view. May be called by any thread. @p next: what will be verified next, NULL if nothing.
 * @return as above; PH_EINTR when *stop has become true.
 */
int ph_view_verify_run(const struct ph_view *view, const struct ph_run *run,
                       const struct ph_run *next, uint64_t first, const _Atomic bool *stop,
                       uint64_t *bad_addr);

#endif
