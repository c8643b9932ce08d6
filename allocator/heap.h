/* SPDX-License-Identifier: MIT */
/*
 * heap.h - the allocator of the persistent heap
 *
 * All blocks lie in [PH_HEAP_BASE, PH_HEAP_END), so the address alone tells whether a block
 * is ours. Small blocks come from size-class slabs whose metadata lies apart, in dense side
 * tables: no header in the page and no list through cold pages, so that allocating and
 * freeing dirty no page of blocks. Large blocks are page-aligned extents, kept mapped,
 * coalesced and reused.
 *
 * All functions are thread-safe. None calls malloc. Blocks are aligned to 16 bytes (8 for
 * blocks of 8 bytes or less is not enough for CPython: always 16).
 *
 * The heap lives in the program; its metadata lies in the heap range too and is captured with
 * it, so after recovery the heap simply goes on. It is never called while threads are parked:
 * a parked thread may hold one of its locks. Only the ph_heap_live_* and ph_heap_used_*
 * functions may be called then; they take no lock.
 */
#ifndef PH_HEAP_H
#define PH_HEAP_H

#include "layout.h"

#include <stdbool.h>
#include <stddef.h>

/**
 * Reserve the range and set up the tables. Idempotent.
 * @return 0, PH_EMAP when the range is taken, PH_ENOMEM when it cannot be reserved (ulimit -v).
 */
int ph_heap_init(void);

/** Whether @p p lies in the heap range. Does not look whether it is a live block. */
static inline bool ph_heap_owns(const void *p)
{
    return (uintptr_t)p - PH_HEAP_BASE < PH_HEAP_END - PH_HEAP_BASE;
}

/** A block of at least @p size bytes; a size of 0 gives a distinct block. NULL with ENOMEM. */
void *ph_heap_malloc(size_t size);
/** As ph_heap_malloc, of @p n * @p size bytes, all zero. NULL with ENOMEM on overflow. */
void *ph_heap_calloc(size_t n, size_t size);
/** Resize @p p (NULL: allocate). In place where possible. @p size 0 gives a block of size 1.
 *  On failure NULL with ENOMEM, and @p p is untouched. */
void *ph_heap_realloc(void *p, size_t size);
/** Free @p p (NULL: nothing). A pointer that is no live block is a fatal error. */
void ph_heap_free(void *p);
/** A block aligned to @p alignment, a power of two. NULL with ENOMEM, or EINVAL. */
void *ph_heap_memalign(size_t alignment, size_t size);
/** Bytes usable at @p p, at least the size asked for. */
size_t ph_heap_usable_size(const void *p);

/** A span of addresses [start, end), both page-aligned. */
struct ph_span {
    uint64_t start, end;
};

/**
 * The address ranges of the heap that have ever been handed out, tables included: outside of
 * them no page has been touched. Few (at most @p max), ascending, not overlapping.
 * @return the number written to @p out.
 */
size_t ph_heap_used_spans(struct ph_span *out, size_t max);

#define PH_HEAP_PARTS 6

/**
 * The parts of the range in which memory is to be had again in a recovered program, ascending.
 * Where the whole range is mapped that is what is in use, and some more, so that it changes
 * seldom; else everything, since what is mapped is in use.
 */
void ph_heap_memory_spans(struct ph_span out[PH_HEAP_PARTS]);

/** Up to where part @p part is memory; beyond it nobody uses what may be mapped. */
uint64_t ph_heap_memory_end(size_t part);

/** Whether the heap's range is mapped as a whole: it never maps anything again. */
bool ph_heap_is_whole(void);

/**
 * The first maximal run of live pages in [from, to): pages that hold at least one live block,
 * or the heap's own tables. Pages that are not live hold nothing that anyone may read again
 * before writing it; they come back from recovery as zero pages, and the heap must not rely on
 * any content of such a page, nor on its being zero unless it was never touched at all.
 * @return false when there is none.
 */
bool ph_heap_live_run(uint64_t from, uint64_t to, struct ph_span *out);

/** Where slabs are, and the table that alone decides what is live in them. */
extern const struct ph_span ph_heap_slab_space, ph_heap_slab_table;

/** The slabs of which [start, end) of that table decides. */
struct ph_span ph_heap_slabs_of(uint64_t start, uint64_t end);

/** Tell the heap that an epoch has been taken: pages dirtied from now on are the new epoch's.
 */
void ph_heap_epoch_mark(void);

/** Called around fork, from pthread_atfork: leaves the child a usable heap. */
void ph_heap_fork_prepare(void);
void ph_heap_fork_parent(void);
void ph_heap_fork_child(void);

struct ph_heap_stats {
    uint64_t live_blocks, live_bytes; /* bytes as handed out (usable sizes) */
    uint64_t live_pages;              /* as ph_heap_live_run counts them */
    uint64_t slab_pages, extent_pages, free_extent_pages, table_pages;
};
void ph_heap_get_stats(struct ph_heap_stats *out);

/**
 * Check every invariant of the whole heap. For tests; the heap must be quiescent.
 * @param why receives a text about the first violation.
 * @return true when all hold.
 */
bool ph_heap_validate(char *why, size_t why_size);

#endif
