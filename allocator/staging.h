/* SPDX-License-Identifier: MIT */
/*
 * staging.h - the shared memory through which epochs pass from the program to the keeper
 *
 * A memfd, mapped by both: a control page, then a ring of pages. The program produces
 * batches, the keeper consumes them in order. A batch is one header page and the payload pages
 * after it, contiguous in memory; one that would not fit before the ring's end is preceded by
 * a SKIP batch. An epoch is BEGIN, any number of PAGES, PRESENT, FILES and RECORD batches,
 * COMMIT.
 *
 * Invariants
 *  S1  consumed <= produced <= consumed + ring_pages; both only grow.
 *  S2  The pages [consumed, produced) belong to the keeper, the others to the program. The
 *      keeper has looked at those before `at`, consumed <= at <= produced.
 *  S3  durable only grows. An epoch above `durable` and at most `failed` will never be durable.
 *  S4  After a failed epoch the keeper drops everything up to the next BEGIN with
 *      PH_EPOCH_FULL: an incremental epoch means nothing without its predecessor.
 *
 * The ring bounds the memory of staging: a full ring makes the program wait, in the middle of
 * an epoch if need be.
 */
#ifndef PH_STAGING_H
#define PH_STAGING_H

#include "layout.h"
#include "undo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define PH_CONTROL_MAGIC   UINT64_C(0x314c544350594850) /* "PHYPCTL1" */
#define PH_CONTROL_VERSION 6

#define PH_BATCH_MAGIC     UINT32_C(0x42485950)
#define PH_BATCH_MAX       256 /* payload pages of a batch at most: 1 MiB */

struct ph_control {
    uint64_t magic;
    uint32_t version;
    int32_t socket_fd; /* in a recovered program: the number of its control socket */
    uint64_t ring_pages;
    uint64_t generation;       /* how often the program has been recovered */
    uint64_t first_epoch;      /* the epoch it was recovered from; 0: started anew */
    _Atomic uint32_t attached; /* the program has found this page: it can take epochs */
    int32_t keeper_pid, keeper_group, keeper_session; /* who it is */

    _Alignas(64) _Atomic uint64_t produced; /* pages, by the program */
    _Atomic uint32_t produced_seq;          /* futex: changes with `produced` */
    _Atomic uint32_t consumer_waits;
    _Atomic uint32_t waker; /* the processor that the program last woke the keeper from */

    _Alignas(64) _Atomic uint64_t consumed; /* pages, by the keeper */
    _Atomic uint32_t consumed_seq;          /* futex: changes with `consumed` */
    _Atomic uint32_t producer_waits;

    _Alignas(64) _Atomic uint64_t durable; /* newest durable epoch */
    _Atomic uint64_t failed;               /* newest epoch known to have failed; 0: none */
    _Atomic uint32_t outcome_seq;          /* futex: changes with `durable` and `failed` */
    _Atomic int32_t failed_code;           /* PH_E* */
    char failed_detail[256];

    /* Epochs that the keeper asks for. `asked` changes with each; the program answers. */
    _Alignas(64) _Atomic uint32_t asked; /* futex */
    _Atomic uint32_t asked_why;          /* enum ph_ask */
    _Atomic uint32_t answered;           /* the `asked` that was dealt with last */
    _Atomic uint64_t answer;             /* the epoch taken for it; 0: none could be taken */
    uint32_t asks;                       /* whether the keeper may ever ask */
    uint64_t asks_on; /* signals because of which it does, bit N-1 for signal N */
    uint32_t strict;  /* an epoch fails if something in it could not come back */
    char undo_directory[PH_UNDO_MAX]; /* what is done to files is noted (undo.h); "": nowhere */

    /* Written by the keeper before `durable` grows. */
    _Alignas(64) _Atomic uint64_t pages_written, bytes_written, commit_ns;
    _Atomic uint64_t total_pages_written, total_bytes_written;

    uint64_t pool_id;             /* whose undo_directory is */
    uint64_t keep;                /* epochs that stay recoverable, at least */
    _Atomic uint64_t undo_number; /* the last one given (undo.h) */
    uint64_t undo_first;          /* the last one that was given before the program started */

    /* ph_mapped_hash of the names last told, once the pool has copies of all with text and
     * these are still what is on the disk; 0: not so. Written by the keeper, now and then. */
    _Atomic uint64_t files_hold;
};
_Static_assert(sizeof(struct ph_control) <= PH_CONTROL_SIZE, "control fits in its range");

/** Why the keeper asks for an epoch. */
enum ph_ask { PH_ASK_CLOCK = 1, PH_ASK_SIGNAL, PH_ASK_FINAL };

enum ph_batch_kind {
    PH_BATCH_SKIP = 1, /* the payload is unused space before the ring's end */
    PH_BATCH_BEGIN,
    PH_BATCH_PAGES,   /* `count` pages, addresses in addr[] */
    PH_BATCH_PRESENT, /* `bytes` of struct ph_span */
    PH_BATCH_RECORD,  /* `bytes` of the process record */
    PH_BATCH_COMMIT,
    PH_BATCH_FILES, /* `bytes` of struct ph_mapped_file, when they are others than before */
};

/** A file that the program has mapped, for the pool to keep a copy of. */
struct ph_mapped_file {
    uint64_t size, mtime_ns, dev, ino; /* as of stat(2) */
    uint32_t room; /* bytes of the path that follows, its end and padding to 8 included */
    uint32_t text; /* whether some of it is mapped to be executed */
};

/** A number for @p size bytes, a multiple of 8, of these: FNV-1a, never 0. */
static inline uint64_t ph_mapped_hash(const void *names, size_t size)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size / sizeof(uint64_t); i++)
        h = (h ^ ((const uint64_t *)names)[i]) * UINT64_C(0x100000001b3);
    return h ? h : 1;
}

#define PH_EPOCH_FULL 1u /* BEGIN: the epoch holds every page, not only the changed ones */
#define PH_EPOCH_AHEAD                                                                         \
    2u /* BEGIN: pages come while the program still runs; a page may come                      \
          again, and the last version counts */

struct ph_batch {
    uint32_t magic, kind;
    uint32_t npages; /* payload pages after this header page */
    uint32_t count;
    uint64_t epoch;
    uint64_t bytes;
    uint64_t time;     /* COMMIT: CLOCK_REALTIME, nanoseconds; BEGIN: CLOCK_MONOTONIC */
    uint32_t flags;    /* BEGIN: PH_EPOCH_* */
    uint32_t messages; /* COMMIT: messages with descriptors sent over the socket */
    union {
        uint64_t addr[PH_BATCH_MAX];
        char label[64]; /* COMMIT; empty: none */
    };
};
_Static_assert(sizeof(struct ph_batch) <= 4096, "header fits in a page");

/** The smallest and the default ring, bytes. */
#define PH_RING_MIN (UINT64_C(4) << 20)

/** Size of the whole memfd for a ring of @p ring_pages pages. */
static inline uint64_t ph_staging_size(uint64_t ring_pages)
{
    return PH_CONTROL_SIZE + ring_pages * PH_PAGE;
}

/* ---- the program's side ---------------------------------------------------------- */

struct ph_stage {
    struct ph_control *control;
    unsigned char *ring;
    uint64_t ring_pages;
    uint64_t position;        /* next page to fill; published up to control->produced */
    uint64_t began;           /* position at the last ph_stage_rewind */
    uint64_t wait_ns;         /* time spent waiting for room, since cleared */
    bool (*peer_alive)(void); /* asked now and then while waiting */
    bool quiet;               /* wake the keeper for much only, and at ph_stage_wake */
    uint64_t shown;           /* position when it was last woken */
    bool populate;            /* its memory may not be to be had: ask before writing to it */
    bool no_memory;           /* why ph_stage_reserve has failed */
    uint64_t populated;       /* pages of the ring that are there */
};

/**
 * Room for a batch with @p npages payload pages (at most PH_BATCH_MAX), waiting for the
 * keeper when the ring is full. @return the header, zeroed but for magic and npages, payload
 * pages behind it; NULL when the keeper is gone, or with no_memory.
 */
struct ph_batch *ph_stage_reserve(struct ph_stage *stage, uint32_t npages);

/**
 * Before an epoch: if the keeper has consumed everything, go on at the ring's start, whose
 * pages are there already, unless the last epoch was small and had more than half of what lies
 * before. So the ring takes as much memory as the largest epoch, not its size.
 */
void ph_stage_rewind(struct ph_stage *stage);

/** Hand over everything reserved so far. */
void ph_stage_publish(struct ph_stage *stage);

/**
 * Have the keeper look at what has been handed over. While the program is stopped it is left
 * asleep unless there is much to do: waking it takes time, and it may take our processor.
 */
void ph_stage_wake(struct ph_stage *stage);

/** Stage @p size bytes as batches of @p kind. @return whether the keeper is there. */
bool ph_stage_bytes(struct ph_stage *stage, enum ph_batch_kind kind, uint64_t epoch,
                    const void *bytes, size_t size);

/* ---- the keeper's side ------------------------------------------------------------ */

/*
 * Consuming a batch and giving its room back are apart, because its pages may still be on
 * their way to the disk: a batch is kept with a ticket, and its room goes back, in order, once
 * the tickets have been reached. Tickets never fall.
 */
#define PH_KEPT_MAX 1025 /* different tickets that are kept at once */

struct ph_kept_room {
    uint64_t ticket, pages;
};

struct ph_drain {
    struct ph_control *control;
    unsigned char *ring;
    uint64_t ring_pages;
    uint64_t at;          /* the next batch, in pages; consumed follows */
    pthread_mutex_t lock; /* of what follows */
    struct ph_kept_room kept[PH_KEPT_MAX];
    unsigned first, n;
};

void ph_drain_open(struct ph_drain *drain, struct ph_control *control, unsigned char *ring,
                   uint64_t ring_pages);

/**
 * The next batch, waiting at most @p timeout_ms while produced_seq is @p seq, as the caller saw
 * it before it last looked at whatever else may end the waiting. NULL when none came. A batch
 * that is not well formed (a program may overwrite anything) is NULL too, with *broken set.
 */
const struct ph_batch *ph_drain_next(struct ph_drain *drain, uint32_t seq, int timeout_ms,
                                     bool *broken);

/** Go on to the next batch; the room of @p batch, last returned, is kept until @p ticket. */
void ph_drain_keep(struct ph_drain *drain, const struct ph_batch *batch, uint64_t ticket);

/** Give the room of what was kept with tickets up to @p reached back to the program. May be
 * called from any thread. */
void ph_drain_release(struct ph_drain *drain, uint64_t reached);

/** Payload page @p i of @p batch. */
static inline const void *ph_batch_page(const struct ph_batch *batch, uint32_t i)
{
    return (const unsigned char *)batch + (i + UINT64_C(1)) * PH_PAGE;
}

/** Wait on @p word while it is @p expected, at most @p timeout_ms; shared between processes. */
void ph_futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_ms);
void ph_futex_wake(_Atomic uint32_t *word);

/** CLOCK_MONOTONIC in nanoseconds. */
uint64_t ph_now_ns(void);

#endif
