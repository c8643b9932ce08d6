/* SPDX-License-Identifier: MIT */
/*
 * heap_internal.h - the parts of the heap and the tables they share
 *
 *   heap_fast.h      the short ways of a small block, inlined into the interpreter's allocators
 *   heap.c           public functions: chooses slab or extent; init; fork
 *   heap_space.c     addresses become memory; the layout of the range
 *   heap_class.c     size classes
 *   heap_slab.c      the pool of slabs: taking one for a class, giving it back
 *   heap_local.c     a thread's slabs: allocation, frees of its own and of other threads
 *   heap_extent.c    large blocks
 *   heap_walk.c      which pages are live; statistics
 *   heap_validate.c  the invariants below, checked
 *
 * The range, all of it constant:
 *
 *   PH_HEAP_BASE     struct ph_space       how far each of these is memory
 *   PH_LOCAL_TABLE   table of locals       one per thread number
 *   PH_SLAB_TABLE    table of slabs        one record per 64 KiB of slab space
 *   PH_EXTENT_TABLE  table of extents      one record per extent, live or free
 *   PH_PAGE_MAP      page -> extent        4 bytes per page of extent space
 *   PH_SLABS         slab space            no metadata
 *   PH_HEAP_EXTENTS  extent space          no metadata
 *
 * All tables start as zero pages and are touched from the bottom up. The few words that are
 * not in a table (struct ph_heap) lie in the library's .bss, which an epoch captures too.
 *
 * Two facts of life shape everything here:
 * - A thread may be stopped between any two instructions, the epoch captured, and the thread
 *   resumed in another process. The walker (heap_walk.c) must then find every block live that
 *   a caller may hold. So each change of liveness is one store, made before the block is
 *   returned, or after its last use.
 * - Pages that hold no live block come back as zero pages. So nothing is stored in free memory
 *   and its content is never relied upon.
 *
 * Invariants (checked by ph_heap_validate, which names them):
 * S1  A slab record in [1, nslabs) is free, current, partial or full. Free ones have no owner
 *     and form the pool list; the others have exactly one owner and are on exactly the list
 *     of that owner that their state names.
 * S2  A set bit in free[] is a slot that its owner may hand out; a set bit in remote[] is one
 *     that another thread has freed. No slot is in both. All other slots are live. Beyond
 *     nslots all bits of free[] are set and none of remote[].
 * S3  full: no bit of a slot is set in free[], and stamp is not the epoch under way. partial:
 *     not all are, and none only until somebody looks for a slab with free slots. free: no
 *     slot is live.
 * S4  If a bit in remote[] is set then pending is set; pending is set exactly if the slab is on
 *     the pending list of one local.
 * S5  A hint that is not empty names a slot of a slab that the hint's local owns, of the hint's
 *     class. It says nothing about the slot: free[] does.
 * X1  Extents tile [0, top) of extent space; the page map names the extent at its first and at
 *     its last page.
 * X2  No two free extents are adjacent.
 * X3  The tree holds exactly the free extents, ordered by (pages, start), with priorities as a
 *     heap.
 * X4  Every extent record below nrecords is an extent of the tiling or on the list of unused
 *     records, not both.
 *
 * Locks, in the order in which they may be taken: ph_heap.slab_lock, ph_heap.extent_lock.
 */
#ifndef PH_HEAP_INTERNAL_H
#define PH_HEAP_INTERNAL_H

#include "heap.h"
#include "heap_lock.h"
#include "heap_space.h"

#include <stdint.h>

/* All of this is within one library: accesses need no detour by its global offset table. */
#pragma GCC visibility push(hidden)

#define PH_LIKELY(x)    __builtin_expect(!!(x), 1)
#define PH_UNLIKELY(x)  __builtin_expect(!!(x), 0)

/* Keeps the compiler from moving accesses to a block across the change of its liveness. */
#define PH_BARRIER()    __asm__ volatile("" ::: "memory")

/* ---- sizes of the parts -------------------------------------------------------------- */

#define PH_LOCAL_MAX    ((uint32_t)1 << (22 - PH_HEAP_SHRINK)) /* as many threads as can be */

#define PH_SLAB_SHIFT   16
#define PH_SLAB_SIZE    ((uint64_t)1 << PH_SLAB_SHIFT) /* bytes */
#define PH_SLAB_PAGES   (PH_SLAB_SIZE / PH_PAGE)
#define PH_SLAB_MAX     ((uint32_t)((PH_HEAP_EXTENTS - PH_SLABS) >> PH_SLAB_SHIFT))
#define PH_EXTENT_PAGES ((PH_HEAP_END - PH_HEAP_EXTENTS) >> PH_PAGE_SHIFT)
#define PH_EXTENT_MAX   ((uint32_t)1 << (31 - PH_HEAP_SHRINK))

/* ---- heap_class.c: size classes ------------------------------------------------------ */

#define PH_CLASSES      69
#define PH_SMALL_MAX    32768 /* bytes; larger blocks are extents */
#define PH_SLOT_MIN     16
#define PH_STEP_MAX     512 /* bytes; up to here the classes are steps of PH_SLOT_MIN */
#define PH_WORDS        ((unsigned)(PH_SLAB_SIZE / PH_SLOT_MIN / 64))

extern const uint16_t ph_class_size[PH_CLASSES];
extern uint8_t ph_class_by_16[1024 / 16 + 1];           /* up to 1024 bytes */
extern uint8_t ph_class_by_128[PH_SMALL_MAX / 128 + 1]; /* above */

/** Fill the two tables above. */
void ph_class_init(void);

/** The class for @p size <= PH_SMALL_MAX. */
static inline unsigned ph_class_of(size_t size)
{
    if (PH_LIKELY(size <= PH_STEP_MAX))
        return (unsigned)((size - (size != 0)) / PH_SLOT_MIN);
    if (size <= 1024)
        return ph_class_by_16[(size + 15) / 16];
    return ph_class_by_128[(size + 127) / 128];
}

/* ---- heap_slab.c: the pool of slabs -------------------------------------------------- */

enum ph_slab_state { PH_SLAB_FREE, PH_SLAB_CURRENT, PH_SLAB_PARTIAL, PH_SLAB_FULL };

#define PH_NO_OWNER UINT32_MAX
#define PH_ORPHANS  0 /* the local that owns the slabs of threads that have ended */

struct ph_slab {
    uint64_t base;    /* address of slot 0 */
    uint32_t size;    /* of a slot, bytes */
    uint32_t inverse; /* ceil(2^32 / size): slot = offset * inverse >> 32, exact below 2^16 */
    uint32_t owner;   /* number of a local; changes under slab_lock only */
    uint16_t nslots;
    uint16_t words;  /* of the bitmaps that are in use */
    uint16_t cursor; /* word of free[] to take hints from next */
    uint16_t busy;   /* a word of free[] that had a live slot when somebody last looked */
    uint8_t state;
    uint8_t class;
    uint32_t stamp;      /* epoch in which it was last current or freed to (but S3) */
    uint32_t next, prev; /* in its list; 0: none */

    /* written by other threads: a cache line of its own */
    uint32_t pending __attribute__((aligned(64)));
    uint32_t pending_next;

    uint64_t free[PH_WORDS] __attribute__((aligned(64)));
    uint64_t remote[PH_WORDS];
};
_Static_assert(sizeof(struct ph_slab) == 1152, "table of slabs");
_Static_assert(PH_SLAB_TABLE + PH_SLAB_MAX * sizeof(struct ph_slab) <= PH_EXTENT_TABLE,
               "table");

#define ph_slabs ((struct ph_slab *)PH_SLAB_TABLE)

static inline uint32_t ph_slab_index(const struct ph_slab *s)
{
    return (uint32_t)(s - ph_slabs);
}

/* The bits of word @p w that stand for slots. */
static inline uint64_t ph_slab_valid(const struct ph_slab *s, unsigned w)
{
    if ((w + 1) * 64 <= s->nslots)
        return ~UINT64_C(0);
    return w * 64 < s->nslots ? (UINT64_C(1) << (s->nslots - w * 64)) - 1 : 0;
}

struct ph_local;

/** Memory for @p n slabs and their records, and for one more of those (heap_walk.c).
 *  @return false: there is none. @pre slab_lock is held. */
bool ph_slab_reach(uint32_t n);
/** An empty slab of class @p c for @p owner, state current. NULL when the range is full.
 *  @pre slab_lock is held. */
struct ph_slab *ph_slab_take(unsigned c, uint32_t owner);
/** Give back a slab that is on no list and has no live slot. @pre slab_lock is held. */
void ph_slab_give(struct ph_slab *s);
/** How many slots are free, whether any is, whether all are: in free[], for the owner. */
unsigned ph_slab_count_free(const struct ph_slab *s);
bool ph_slab_any_free(const struct ph_slab *s);
bool ph_slab_all_free(struct ph_slab *s); /* leaves in busy where that failed */
/** Whether page @p page of the slab may hold a part of a live block. Lock-free. */
bool ph_slab_page_live(const struct ph_slab *s, unsigned page);

/* ---- heap_local.c: a thread's slabs -------------------------------------------------- */

struct ph_slab_list {
    uint32_t head, tail, count;
};

/* A slot that was free when the hint was made. */
struct ph_hint {
    void *block;
    uint64_t bit; /* address of its word in free[], and in the upper 6 bits which bit of it */
};
#define PH_HINTS 16 /* of a class, the one at the bottom always empty */

struct ph_local {
    uint32_t number;
    uint32_t idle_next;                  /* next unused local; 0: none */
    uint32_t pending;                    /* first slab to which others have freed; 0: none */
    uint32_t in_use;                     /* a thread has it (never of PH_ORPHANS) */
    struct ph_slab *current[PH_CLASSES]; /* new hints are taken from it; NULL: none */
    struct ph_slab_list partial[PH_CLASSES]; /* hottest first */
    struct ph_slab_list full[PH_CLASSES];
    struct ph_hint hint[PH_CLASSES][PH_HINTS] __attribute__((aligned(256)));
} __attribute__((aligned(4096)));
_Static_assert(sizeof(struct ph_local) == 5 * 4096, "table of locals");
_Static_assert(sizeof(struct ph_hint[PH_HINTS]) == 256, "the address tells which is the last");
_Static_assert(PH_LOCAL_TABLE + PH_LOCAL_MAX * sizeof(struct ph_local) <= PH_SLAB_TABLE,
               "table");

#define ph_locals ((struct ph_local *)PH_LOCAL_TABLE)

/* What the fast paths need of the thread, found without a call. */
struct ph_self {
    struct ph_local *local; /* NULL: none yet, or none any more */
    uint32_t number;
    struct ph_hint *top[PH_CLASSES]; /* the newest hint of each class */
};
extern __thread struct ph_self ph_self __attribute__((tls_model("initial-exec")));

/** Prepare detection of thread exit. @return 0 or PH_ENOMEM. */
int ph_local_init(void);
/** A block of class @p c when the newest hint is of no use. NULL with errno. */
void *ph_local_alloc_slow(unsigned c);
/** The rest of a free when the slab was cold or full. */
void ph_local_freed(struct ph_slab *s);
/** The rest of a free when a word has no live slot any more. */
void ph_local_freed_word(struct ph_slab *s);
/** Free slot @p slot of a slab of another owner. @return false if it is not live. */
bool ph_local_free_remote(struct ph_slab *s, uint32_t slot);
/** In a forked child: every slab that is not the caller's becomes an orphan.
 *  @pre slab_lock is held since before the fork. */
void ph_local_after_fork(void);

/* ---- heap_extent.c: large blocks ----------------------------------------------------- */

#define PH_EXTENT_LIVE (UINT64_C(1) << 63)

struct ph_extent {
    uint64_t span;        /* pages, and PH_EXTENT_LIVE: one word, so that both change at once */
    uint32_t start;       /* page number in extent space; UINT32_MAX: unused record */
    uint32_t left, right; /* in the tree of free extents; left: next unused record; 0: none */
    uint32_t unused;
};
_Static_assert(sizeof(struct ph_extent) == 24, "table of extents");
_Static_assert(PH_EXTENT_TABLE + PH_EXTENT_MAX * sizeof(struct ph_extent) <= PH_PAGE_MAP, "");
_Static_assert(PH_PAGE_MAP + PH_EXTENT_PAGES * 4 <= PH_SLABS, "page map");
_Static_assert(PH_EXTENT_PAGES < UINT32_MAX, "page numbers are 32 bits");

#define ph_extents  ((struct ph_extent *)PH_EXTENT_TABLE)
#define ph_page_map ((uint32_t *)PH_PAGE_MAP)

/** The table's first page. @return false: no memory. */
bool ph_extent_init(void);
/** A block of @p size bytes at a multiple of @p alignment >= PH_PAGE.
 *  @param stale receives the bytes at its start that may be other than zero. */
void *ph_extent_alloc(size_t size, size_t alignment, size_t *stale);
/** @return false if @p p is no live extent. */
bool ph_extent_free(void *p);
/** Resize where it is. @return false if that is not possible. @pre @p p is a live extent. */
bool ph_extent_resize(void *p, size_t size);
/** Bytes of the live extent at @p p; 0 if there is none. */
size_t ph_extent_size(const void *p);
/** Priority of record @p id in the tree. */
uint32_t ph_extent_priority(uint32_t id);

/* ---- heap.c -------------------------------------------------------------------------- */

struct ph_heap {
    /* slabs and locals, under slab_lock */
    struct ph_lock slab_lock;
    uint32_t ready;
    uint32_t nslabs;     /* records in use, the unused record 0 included */
    uint32_t slab_pool;  /* first free slab; 0: none */
    uint32_t nlocals;    /* locals in use, the orphans included */
    uint32_t idle_local; /* first local without a thread; 0: none */

    /* extents, under extent_lock */
    struct ph_lock extent_lock;
    uint32_t nrecords;      /* extent records in use, the unused record 0 included */
    uint32_t unused_record; /* first unused record; 0: none */
    uint32_t tree;          /* root of the free extents; 0: none */
    uint64_t top;           /* pages of extent space ever handed out */

    uint32_t walk_hint; /* page of the extent at which the walker was last */
};
extern struct ph_heap ph_heap;

/* The number of the epoch under way, modulo 2^32; compared for equality only. */
extern uint32_t ph_heap_epoch;

/** Write "pyheap: @p what 0x..." to standard error and abort. */
_Noreturn void ph_heap_fatal(const char *what, const void *p);

#pragma GCC visibility pop

#endif
