/* SPDX-License-Identifier: MIT */
/*
 * pool_internal.h - the parts of the pool, as they see each other
 *
 * Reads as a table of contents: one group for each file, in the order in which the files are
 * best read. pool_format.h, which holds the invariants P1 to P10, comes first.
 *
 * Locking: pool->lock guards the root, the list of epochs, the extents and the migration's
 * state. The filter and the epoch in progress belong to the calling thread alone. The lock is
 * held over the write of a root record, never over page data.
 */
#ifndef PH_POOL_INTERNAL_H
#define PH_POOL_INTERNAL_H

#include "allocator/io.h"
#include "allocator/pool.h"
#include "allocator/pool_format.h"

#include <libpmemobj.h>
#include <pthread.h>

#define PH_NO_SLOT       UINT32_MAX
#define PH_IO_CHUNK      (UINT64_C(1) << 20) /* largest single read, bytes */
#define PH_POOL_SIZE_MIN (UINT64_C(16) << 20)

/* ---- tuning: what tests change --------------------------------------------------- */

/* Wrong orders, for the crash test to catch. */
enum ph_wrong {
    PH_WRONG_NONE,
    PH_WRONG_NO_DATA_BARRIER, /* breaks P1 */
    PH_WRONG_NO_RETIRE,       /* breaks P3 */
    PH_WRONG_NO_HOME_BARRIER, /* breaks P4 */
    PH_WRONG_EARLY_REUSE,     /* breaks P5 */
    PH_WRONG_NO_FILE_BARRIER, /* breaks P1 for files */
    PH_WRONG_LATE_WRITES,     /* breaks W4, and so P1 */
    PH_WRONG_EARLY_NAME,      /* breaks P7: a slot says home before its table is zeros */
    PH_WRONG_LATE_UNNAME,     /* breaks P7: reused while its slot may still say home */
    PH_WRONG_EARLY_HEIR, /* breaks P11: an heir's slot says home before its pages are durable */
    PH_WRONG_TWO_HOMES,  /* breaks P11: H rises while the old home's slot may say home */
    PH_WRONG_LATE_VERSION, /* breaks P4: what only an epoch after O has anew is not at home */
};

struct ph_tuning {
    uint32_t stretch_pages;  /* of pools created from now on */
    uint64_t trigger_bytes;  /* of log beyond the kept epochs, at least, before migration */
    uint32_t trigger_epochs; /* or so many epochs beyond the kept ones */
    uint32_t heir_run;  /* pages of a stretch in a row that make an heir, if it has no place */
    uint64_t write_max; /* largest single write of the log, bytes */
    uint32_t ahead;     /* free extents that the background thread keeps ready */
    bool single_threaded; /* migration within commit, writes in the caller's thread */
    enum ph_wrong wrong;
};
extern struct ph_tuning ph_tuning;

/* ---- pool_filter.c: volatile table from page to checksum ------------------------ */

struct ph_filter {
    struct ph_filter_block *block; /* blocks of consecutive pages, in order of creation */
    uint32_t blocks, block_capacity;
    uint32_t *slot; /* open addressing: index of a block + 1 */
    uint32_t slots; /* a power of two */
};

void ph_filter_free(struct ph_filter *f);
/** The checksum of the page at @p addr; zero: absent. */
struct ph_sum_pm ph_filter_get(const struct ph_filter *f, uint64_t addr);
/** Make room for @p addr, so that ph_filter_put cannot fail. @return 0, PH_ENOMEM. */
int ph_filter_reserve(struct ph_filter *f, uint64_t addr);
/** @pre reserved, or @p sum is zero. */
void ph_filter_put(struct ph_filter *f, uint64_t addr, struct ph_sum_pm sum);
/** Call @p fn for each page that is present, in no order; stops when it returns non-zero. */
int ph_filter_each(const struct ph_filter *f, int (*fn)(void *arg, uint64_t addr), void *arg);
/** Bytes of memory taken. */
size_t ph_filter_bytes(const struct ph_filter *f);

/* ---- pool_mark.c: which pages may hold the owner of a lock ------------------------ */

bool ph_page_may_own(const void *page);
/** The same without what this processor can do: for tests. */
bool ph_page_may_own_plain(const uint64_t *page);

/* ---- pool_index.c: checksums, headers, indexes, and how they merge ---------------- */

struct ph_index {
    struct ph_entry_pm *entry; /* strictly ascending by address */
    size_t n;
};

struct ph_sum_pm ph_sum(const void *bytes, size_t size);
/** Of a page, with its mark. */
struct ph_sum_pm ph_sum_page(const void *page);
bool ph_sum_is_marked(struct ph_sum_pm s);
bool ph_sum_equal(struct ph_sum_pm a, struct ph_sum_pm b);
bool ph_sum_is_zero(struct ph_sum_pm s);

/** Sort @p n entries by address. @return 0, PH_EUSAGE if an address is there twice. */
int ph_index_sort(struct ph_entry_pm *entry, size_t n);
/** Merge @p n indexes, oldest first, into one where the newest entry of an address wins.
 * Consumes them. @return 0, PH_ENOMEM. */
int ph_index_merge(struct ph_index *index, size_t n, struct ph_index *out);
void ph_index_free(struct ph_index *index);

/** Whether [offset, offset + size) lies within the file, from a page boundary but the first. */
bool ph_in_file(const struct ph_pool *p, uint64_t offset, uint64_t size);
/** Read and check the header page at @p offset. @return 0, PH_ECORRUPT, PH_EIO. */
int ph_header_load(struct ph_pool *p, uint64_t offset, uint64_t number,
                   struct ph_header_pm *out);
/** Read and check the index of an epoch. @return 0, PH_ECORRUPT, PH_EIO, PH_ENOMEM. */
int ph_index_load(struct ph_pool *p, const struct ph_header_pm *h, struct ph_index *out);
struct ph_epoch;
/** The same of the @p n epochs at @p e, oldest first, merged. @param kept use up those that
 * opening the pool has left (pool_root.c), @pre lock held. @param h receives the last one's
 * header. */
int ph_index_load_epochs(struct ph_pool *p, const struct ph_epoch *e, size_t n, bool kept,
                         struct ph_header_pm *h, struct ph_index *out);
/** Read and check the record of an epoch; @p out is to be freed. @return as above. */
int ph_record_load(struct ph_pool *p, const struct ph_header_pm *h, void **out);

/* ---- pool_root.c: root records, and the chain of epochs they reach ---------------- */

struct ph_epoch {
    uint64_t header; /* offset */
    struct ph_epoch_info info;
};

/** Write @p p's root as the newer record, durably. A failure is sticky. @pre lock held.
 * @return 0, PH_EIO. */
int ph_root_write(struct ph_pool *p);
/** The same without a sync: wrong on purpose, see PH_WRONG_EARLY_REUSE. */
int ph_root_write_lazily(struct ph_pool *p);
/** As ph_root_write, into both records (P5). */
int ph_root_write_both(struct ph_pool *p);
/** Put the newest epochs of the list into the root's recent[]. */
void ph_root_set_recent(struct ph_pool *p);
/** Read the newer intact root record, and whether the other one agrees with it on what may be
 * reused. @return 0, PH_ECORRUPT, PH_EIO. */
int ph_root_read(struct ph_pool *p, struct ph_root_pm *out, bool *settled);
/** Make both root records agree before anything is reused (P5); damaged epochs at the end are
 * given up only here. @pre lock held. @return 0, PH_EIO. */
int ph_root_settle(struct ph_pool *p);
struct ph_kept {
    uint64_t number; /* of the epoch */
    struct ph_index index;
};

/** Fill the filter, if it is not: for a first epoch, not at opening, so that a recovered
 * program need not wait for it. @pre lock held. @return 0, PH_ECORRUPT, PH_EIO, PH_ENOMEM. */
int ph_root_fill_filter(struct ph_pool *p);
/** The index of epoch @p number, if opening the pool has left it; it is the caller's then. */
bool ph_root_kept_index(struct ph_pool *p, uint64_t number, struct ph_index *out);
/** They are not needed any more. */
void ph_root_forget_indexes(struct ph_pool *p);
/** (Re)build all volatile state from the file, but the filter. @return 0, PH_ECORRUPT, PH_EIO,
 * PH_ENOMEM. */
int ph_root_load(struct ph_pool *p);

/* ---- pool_extent.c: extents and their slots ------------------------------------- */

enum ph_extent_role {
    PH_EXTENT_EMPTY,
    PH_EXTENT_GROWING,
    PH_EXTENT_FREE,
    PH_EXTENT_TAKEN, /* as a whole, to become home: its slot does not say so yet */
    PH_EXTENT_OLD,   /* was home, and its slot may say so still (P11) */
    PH_EXTENT_LOG,
    PH_EXTENT_HOME,
    PH_EXTENT_FILES
};

/* The log takes an extent by segments: so it fills what it has freed, and takes no more of the
 * disk than it needs. What lies in which segment is not on the medium, but follows from the
 * epochs. */
#define PH_SEGMENTS     16u
#define PH_ALL_SEGMENTS ((1u << PH_SEGMENTS) - 1)

struct ph_extent {
    uint64_t offset; /* of the first page; 0: the slot is empty */
    enum ph_extent_role role;
    bool heir;        /* LOG: as a whole; see pool_heir.c */
    bool mixed;       /* LOG, while it is marked: it has something that makes it no heir */
    uint64_t stretch; /* HOME, TAKEN, OLD, heir: its first address */
    uint32_t used;    /* LOG: a bit for each segment that is not free; else 0 */
    uint32_t holes;   /* FREE, LOG: a bit for each segment that takes no space on the disk */
    bool blank; /* where a stretch has its table, nothing has ever been written: it is zeros */
    bool lost;  /* HOME: it may have blocks of pages that are absent (pool_shrink.c) */
    /* Of used segments the newest epoch that has something there. At home, until
     * ph_extent_settle, the first stands for all. */
    uint64_t last_epoch[PH_SEGMENTS];
};

#define PH_EPOCH_OPEN UINT64_MAX /* last_epoch while the epoch in progress writes here */

/** Build the table of extents from the slots. @return 0, PH_ECORRUPT, PH_EIO, PH_ENOMEM. */
int ph_extent_load(struct ph_pool *p);
/** Mark all that epoch @p h takes as log. Oldest first. @return 0, PH_ECORRUPT. */
int ph_extent_mark(struct ph_pool *p, const struct ph_header_pm *h, uint64_t header,
                   const struct ph_index *index);
/** When all of the log is marked: find the heirs, and of two homes of a stretch the one that
 * stays (P11). @return 0, PH_ECORRUPT. */
int ph_extent_settle(struct ph_pool *p);
/** Mark what a stored file takes. @pre all of the log is marked. @return 0, PH_ECORRUPT. */
int ph_extent_mark_file(struct ph_pool *p, uint64_t offset, uint64_t size);
/** The slot whose extent holds @p offset, or PH_NO_SLOT. */
uint32_t ph_extent_find(const struct ph_pool *p, uint64_t offset);
/** Take a free extent as a whole, a new one if there is none. @p blocks: one that has them
 * on the disk rather than holes. @pre lock held; released meanwhile.
 * @return 0, PH_EFULL, PH_EPOOLSIZE, PH_EIO. */
int ph_extent_take(struct ph_pool *p, enum ph_extent_role role, bool blocks, uint32_t *slot);
/** Have a new extent allocated by libpmemobj. @pre lock held; released meanwhile. @return as
 * above. */
int ph_extent_grow(struct ph_pool *p, uint32_t *slot);
/** Make a hole of an extent that has been taken: a stretch takes space for the pages that it
 * has, not for what the log left there. */
void ph_extent_clear(struct ph_pool *p, uint32_t slot);
/** Write the slot's role and stretch; not durable yet. @return 0, PH_EFULL, PH_EIO. */
int ph_extent_name(struct ph_pool *p, uint32_t slot, uint32_t role, uint64_t stretch);
/** How many extents have @p role. */
uint32_t ph_extent_count(const struct ph_pool *p, enum ph_extent_role role);

/* ---- pool_room.c: the log's segments, and where the log ends ----------------------- */

/** Pages of a segment; the last one of an extent has what is left over, too. */
static inline uint32_t ph_segment_pages(const struct ph_super_pm *s)
{
    return s->extent_pages / PH_SEGMENTS;
}

/** The segment that @p page of an extent is in, and where that ends. */
static inline uint32_t ph_segment_of(const struct ph_super_pm *s, uint32_t page)
{
    uint32_t n = page / ph_segment_pages(s);
    return n < PH_SEGMENTS ? n : PH_SEGMENTS - 1;
}
static inline uint32_t ph_segment_end(const struct ph_super_pm *s, uint32_t segment)
{
    return segment == PH_SEGMENTS - 1 ? s->extent_pages : (segment + 1) * ph_segment_pages(s);
}

/** The log goes on after the page at @p offset. @pre lock held. */
void ph_room_end_at(struct ph_pool *p, uint64_t offset);
/** Whether the disk has room for @p bytes and for all of the log to go home (S5). @pre lock
 * held. @return 0, PH_EFULL, PH_EIO. */
int ph_room_allows(struct ph_pool *p, uint64_t bytes);
/** Take up to @p want pages at the end of the log. @return 0, PH_EFULL, PH_EPOOLSIZE, PH_EIO,
 * PH_ENOMEM. */
int ph_room_take(struct ph_pool *p, uint64_t want, uint64_t *offset, uint64_t *got);
/** The epoch in progress is given up, or has become durable. @pre lock held. */
void ph_room_abort(struct ph_pool *p);
void ph_room_adopt(struct ph_pool *p);
/** Free the log's segments that no epoch after H uses. @pre lock held; both root records say
 * H. */
void ph_room_retire(struct ph_pool *p);
/** Note how little of the disk has been spare. @pre lock held. */
void ph_room_note_spare(struct ph_pool *p);
/** Give free segments back to the file system that the log has not needed since the last call.
 * @pre both root records say H. */
void ph_room_punch(struct ph_pool *p);

/* After an epoch that was given up: if the disk was full, all free segments become holes, and
 * the log goes home. */
void ph_room_give_back(struct ph_pool *p);

/* ---- pool_guard.c: libpmemobj on a full disk and in a damaged pool ----------------- */

/** Call fn(arg), which calls libpmemobj, so that a store into a hole of a full file system
 * (SIGBUS) comes back as PH_EFULL, a failing disk as PH_EIO, and a crash or an endless loop,
 * since libpmemobj's own part of the pool is damaged, as PH_ECORRUPT. After any of them
 * libpmemobj is not to be called again on that pool. @return else what fn returns. */
int ph_guard(struct ph_io *io, int (*fn)(void *arg), void *arg);

/* ---- pool_write.c: the log's writes, in a thread of their own ---------------------- */

struct ph_write {
    const void *bytes;
    uint64_t size, offset;
};

struct ph_queue {
    pthread_mutex_t lock; /* never held together with the pool's */
    pthread_cond_t work, done;
    struct ph_write pending[PH_POOL_PENDING_MAX]; /* by number */
    uint64_t added, written;                      /* requests, since the pool was opened */
    uint64_t bytes;                               /* pending */
    bool busy;                                    /* somebody writes */
    bool urgent;                                  /* write, however little it is */
    int err, err_number;                          /* the failure, and its errno */
    void (*on_written)(void *arg);
    void *arg;
    pthread_t thread;
    bool runs, stop;
};

void ph_queue_init(struct ph_queue *q);
/** Start the thread; without it, whoever flushes writes. @return 0, PH_ENOMEM. */
int ph_queue_start(struct ph_pool *p);
/** Stop the thread. @pre nothing is pending. */
void ph_queue_free(struct ph_pool *p);
/** Have @p size bytes written at @p offset; they are read until it is done. Waits when too
 * much is pending. @return 0, or why an earlier request failed: PH_EFULL, PH_EIO. */
int ph_queue_add(struct ph_pool *p, const void *bytes, uint64_t size, uint64_t offset);
/** Have all that is pending written, by the caller if need be. @return as above. */
int ph_queue_flush(struct ph_pool *p);
/** Forget what is pending, and a failure. */
void ph_queue_drop(struct ph_pool *p);

/* ---- pool_log.c: the epoch in progress ------------------------------------------ */

struct ph_touched {
    uint32_t slot, segment;
    uint64_t old_last; /* 0: it was free */
};

/** Where the log ends. */
struct ph_end {
    uint32_t slot;        /* PH_NO_SLOT: it needs a segment */
    uint32_t page, limit; /* of the extent: the next one, and the end of the segment */
    bool hole;            /* its blocks may not be there yet */
};

struct ph_again {
    uint32_t *slot;
    uint32_t slots, used;
};

struct ph_writing {
    uint64_t number; /* 0: no epoch in progress */
    int failed;      /* its first failure */
    struct ph_entry_pm *entry;
    size_t entries, entry_capacity;
    bool again; /* pages may be appended again: those that must not count have a zero sum */
    struct ph_again again_table;
    char *record;
    size_t record_size, record_capacity;
    void *meta; /* index, record and header as they are written */
    struct ph_page_span *span;
    size_t spans;
    bool present_set, all_within; /* all_within: no page was appended outside of the spans */
    struct ph_touched *touched;
    size_t ntouched, touched_capacity;
    struct ph_end start; /* where the log ended before */
    uint64_t log_pages;  /* taken so far */
    uint32_t *heir;      /* extents that it fills as a whole */
    size_t heirs, heir_capacity;
    uint64_t heir_pages; /* placed there */
    bool no_heirs;       /* there was no room for one more */
    bool tight;          /* what it has of the log is more than the rest of that leaves (S5) */
};

/* ---- pool_view.c ---------------------------------------------------------------------- */

/** Count the pages of the log that are the newest of their addresses, and of none of the @p n
 * entries, ascending. @pre lock held. @return 0, PH_ECORRUPT, PH_EIO, PH_ENOMEM. */
int ph_view_count_newest(struct ph_pool *p, const struct ph_entry_pm *e, size_t n,
                         uint64_t *pages);

/* ---- pool_heir.c: what will be home, filled by an epoch ----------------------------- */

/** A stretch of which an epoch has changed most pages. */
struct ph_dense {
    uint64_t stretch;
    uint32_t pages;
};

/** Give those of @p n pages that lie in the first one's stretch, @p run of them in a row, their
 * places in its heir; unless @p placed is false: they are to go to the log. @return 0, PH_EIO,
 * PH_ENOMEM. */
int ph_heir_place(struct ph_pool *p, struct ph_entry_pm *e, size_t n, size_t *run,
                  bool *placed);
/** The epoch in progress has become durable, or is given up. @pre lock held. */
void ph_heir_adopt(struct ph_pool *p);
void ph_heir_abort(struct ph_pool *p);
/** Which heir shall become the home of the @p n entries' stretch in place of @p home
 * (PH_NO_SLOT: it has none), now that epoch @p to goes home. @p heir: PH_NO_SLOT if copying the
 * pages there is less. @p table is overwritten. @return 0, PH_ECORRUPT, PH_EIO. */
int ph_heir_choose(struct ph_pool *p, const struct ph_entry_pm *e, size_t n, uint64_t to,
                   uint32_t home, struct ph_sum_pm *table, uint32_t *heir);

/* ---- pool_again.c: pages that are appended more than once in an epoch ------------- */

/** The newest entry of @p addr in the epoch in progress, dead or not; NULL: there is none. */
struct ph_entry_pm *ph_again_find(struct ph_writing *w, uint64_t addr);
/** The last entry is the newest of its address. @return 0, PH_ENOMEM. */
int ph_again_note(struct ph_writing *w);
/** Remove the dead entries, and forget which is the newest. */
void ph_again_drop(struct ph_writing *w);

/* ---- pool_files.c: copies of the files that the program maps ---------------------- */

struct ph_stored {
    uint64_t header; /* offset */
    struct ph_stored_pm pm;
};

struct ph_files {
    struct ph_stored *file; /* oldest first */
    size_t n, capacity;
    uint32_t slot, page;       /* where the files end; slot PH_NO_SLOT: needs an extent */
    struct ph_storing *active; /* the file being stored */
    bool refused;              /* given up for an epoch: none until the pool is opened again */
};

/** Read the chain that the root names. Damage is no error: then there are no files. @pre the
 * log is marked. @return 0, PH_EIO, PH_ENOMEM. */
int ph_files_load(struct ph_pool *p);
/** Give all files up, so that epochs have the room. @pre lock held. @return 0, PH_ENOEPOCH if
 * there are none, PH_EIO. */
int ph_files_give_up(struct ph_pool *p);
void ph_files_free(struct ph_pool *p);

/* ---- pool_home.c: migration ---------------------------------------------------- */

/** Migrate all epochs but the kept ones. @return 0 (nothing to do included), or an error; then
 * nothing is lost, and a later call tries again. */
int ph_home_migrate(struct ph_pool *p);
/** The stretch that @p addr is in, and its place in the home in @p slot. */
uint64_t ph_stretch_of(const struct ph_pool *p, uint64_t addr);
uint64_t ph_home_place(const struct ph_pool *p, uint32_t slot, uint64_t addr);
/** Whether the page of @p e lies at its place in @p slot's extent, which is or will be its
 * home. */
bool ph_is_at_home(const struct ph_pool *p, uint32_t slot, const struct ph_entry_pm *e);
/** Read the checksum table of the stretch in @p slot. @return 0, PH_EIO. */
int ph_home_table(struct ph_pool *p, uint32_t slot, struct ph_sum_pm *table);

/* ---- pool_shrink.c: blocks at home that nothing lies in ------------------------------ */

/** At the end of a migration: pages that have been absent at home for longer become holes. @pre
 * nothing else migrates; both root records say H. */
void ph_home_shrink(struct ph_pool *p);
/** Forget what is known of absent pages. */
void ph_home_shrink_free(struct ph_pool *p);

/* ---- pool_pace.c: when migration runs ---------------------------------------------- */

/** How many epochs may leave the log. @pre lock held. */
size_t ph_home_excess(const struct ph_pool *p);
/** How many the next migration takes off it, not 0 if any may leave: all if p->all_home, else
 * the oldest, so that the log is two thirds of what triggers one. @pre lock held. */
size_t ph_home_batch(const struct ph_pool *p);
/** Whether the triggers say that it is time. @pre lock held. */
bool ph_home_due(const struct ph_pool *p);
/** Whether the writer has to wait for migration. @pre lock held. */
bool ph_home_behind(const struct ph_pool *p);
/** Start and stop the background thread. @return 0, PH_ENOMEM. */
int ph_home_start(struct ph_pool *p);
void ph_home_stop(struct ph_pool *p);
/** Wake the background thread if there is something to do. @pre lock held. */
void ph_home_wake(struct ph_pool *p);
/** Migrate now, @p all or as usual, and wait for the end. @pre lock held; released meanwhile.
 * @return 0 if something was migrated, PH_ENOEPOCH if there was nothing to migrate, or its
 * error. */
int ph_home_force(struct ph_pool *p, bool all);

/* ---- pool.c -------------------------------------------------------------------- */

struct ph_pool {
    struct ph_io io;
    char *path;
    PMEMobjpool *pop; /* NULL when opened for reading */
    bool pop_lost;    /* a call into libpmemobj was cut short: it may not be called again */
    bool writable;
    bool claimed; /* a claim, no pool yet: of super the plan, and nothing behind it */
    char detail[256];

    struct ph_super_pm super;
    struct ph_filter filter; /* filled with the first epoch */
    bool filter_filled;
    struct ph_kept *kept;
    size_t kept_indexes;
    struct ph_writing writing;
    struct ph_queue queue;
    /* What the newest epoch said is present, so that the next one need look only at what is
     * not any more. Known: every page in the filter lies within. */
    struct ph_page_span *present;
    size_t presents;
    bool present_known;
    struct ph_dense *dense; /* of the newest epoch, ascending */
    size_t denses, dense_capacity;
    void *bounce; /* PH_IO_CHUNK bytes, page-aligned; the writer's thread alone */

    pthread_mutex_t lock;
    struct ph_root_pm root;
    struct ph_epoch *epoch; /* the log, oldest first */
    size_t epochs, epoch_capacity;
    struct ph_extent *extent; /* by slot */
    uint32_t *by_offset;      /* slots in use, ascending by offset */
    uint32_t extents;         /* slots in use */
    uint32_t least_spare;     /* fewest free segments with blocks since ph_room_punch */
    unsigned punching;        /* segments that become holes, and are not free meanwhile (S2) */
    bool room_wanted;         /* and the writer waits for it */
    bool disk_full;           /* an epoch has failed for it, and is not given up yet */
    struct ph_end end;
    struct ph_files files;
    unsigned views;     /* a writer's, that are not freed yet */
    bool unsettled;     /* see ph_root_settle */
    _Atomic int broken; /* sticky: a sync or a root record failed */
    uint64_t pages_appended, pages_migrated, pages_filtered;

    pthread_t thread;
    bool all_home; /* the next migration leaves none but the kept epochs */
    bool thread_runs, awake, migrate_now, migrating, grow_failed;
    _Atomic bool stop;         /* the thread is to end */
    uint64_t migrations;       /* ended */
    struct ph_absent **absent; /* by slot; for whoever migrates alone */
    int migrate_err;           /* of the last one */
    pthread_cond_t wake, done;
};

/** All of it empty, for a file at @p path. @return NULL: no memory. */
struct ph_pool *ph_pool_new(const char *path);
/** ph_pool_open of what is open already as @p fd, which is the pool's from now on. */
int ph_pool_open_file(struct ph_pool **out, const char *path, int fd, enum ph_pool_mode mode);

/** For readers: take notice of what a writer in another process did since. @pre lock held. */
int ph_pool_refresh(struct ph_pool *p);
/** For readers: whether what was read since the last refresh may have been reused. */
bool ph_pool_is_stale(struct ph_pool *p);

/** A sync in which pages of others take part as well: the kernel reports a failure only once,
 * so it is sticky. @return 0, PH_EIO. */
int ph_pool_sync(struct ph_pool *p);
int ph_pool_sync_locked(struct ph_pool *p); /* @pre lock held */

/** What a failed open(2) means: the code for its errno. */
int ph_pool_open_error(int err);

/** Note @p err's circumstances for ph_pool_error_detail. @return @p err. */
int ph_pool_fail(struct ph_pool *p, int err, const char *what);
/** Make *array, of *capacity elements of @p element bytes, hold @p need. @return 0, PH_ENOMEM.
 */
int ph_pool_grow(void *array, size_t *capacity, size_t need, size_t element);

/* ---- pool_name.c: how a file gets its name ---------------------------------------- */

/** A new file, mode 0600, that will be called @p path: without a name, or with one made of
 * @p id. @return 0, PH_EACCES, PH_ENOENT, PH_EFULL, PH_EIO, PH_ENOMEM. */
int ph_name_new_file(const char *path, const uint64_t id[2], int *fd);
/** The name made of @p id is not needed any more, if there is one. */
void ph_name_discard(const char *path, const uint64_t id[2]);
/** Call the new file @p path. @return 0, PH_EUNFINISHED if there is one of that name, or as
 * above. */
int ph_name_give(int fd, const char *path, const uint64_t id[2]);
/** The same in the place of the file @p old. @return 0, PH_EBUSY if another has taken the
 * name, or as above. */
int ph_name_pass_on(int old, int fd, const char *path, const uint64_t id[2]);
/** Rename without replacing. @return as rename(2). */
int ph_name_move(const char *from, const char *to);
/** Whether @p path is the file open as @p fd. */
bool ph_name_is_of(int fd, const char *path);
/** Make the names in @p path's directory durable. @return 0, PH_EIO, PH_ENOMEM. */
int ph_name_sync(const char *path);

/* Another name that the file open as @p fd, which was @p path, has by now: anywhere, if it was
 * opened by its name, else in the same directory. @return whether there is one. */
bool ph_name_find(int fd, const char *path, char name[PATH_MAX]);

/* ---- pool_claim.c: the name before the pool ---------------------------------------- */

/** Read the claim that p->io holds. @return 0, PH_ENEWER, PH_ECORRUPT, PH_ETRUNC, PH_EIO. */
int ph_claim_load(struct ph_pool *p);
/** Lock it as its maker does. @return 0, PH_EBUSY, PH_EIO. */
int ph_claim_lock(int fd);

/* ---- pool_pmem.c: libpmemobj's container -------------------------------------------- */

/** Make p->io's file a libpmemobj pool with a root object, or open it as one.
 * @return 0, PH_EFULL, PH_EPOOLSIZE, PH_EBUSY, PH_ECORRUPT, PH_EIO, PH_ENOMEM. */
int ph_pmem_create(struct ph_pool *p);
int ph_pmem_open(struct ph_pool *p);
/** Bytes at most that its headers take in a file of @p size. */
uint64_t ph_pmem_headers(uint64_t size);
/** Reserve the blocks that libpmemobj stores to through its mapping. @return 0, PH_EFULL,
 * PH_EIO. */
int ph_pmem_reserve(struct ph_io *io, uint64_t size);

/* ---- pool_create.c: a pool out of a claim ------------------------------------------- */

/** Give the pool to be its random id. @return 0, PH_EKERNEL. */
int ph_pool_new_id(struct ph_pool *p);
/** Decide every number of the pool to be, and try its size on p->io's file. @return 0,
 * PH_EPOOLSIZE, PH_EFULL, PH_EIO. */
int ph_pool_plan(struct ph_pool *p, const struct ph_pool_options *opt);
/** Make the pool that is claimed. @return 0, PH_EACCES, PH_EBUSY if its name has been taken,
 * PH_EFULL, PH_EPOOLSIZE, PH_EIO, PH_ENOMEM; then it is a claim as before. */
int ph_pool_make(struct ph_pool *p);

/** Pages of a stretch's table. */
static inline uint32_t ph_table_pages(const struct ph_super_pm *s)
{
    return (uint32_t)((s->stretch_pages * sizeof(struct ph_sum_pm) + PH_PAGE - 1) / PH_PAGE);
}

#endif
