/* SPDX-License-Identifier: MIT */
/*
 * restorer_owners.c - locks that remember their owner by thread id get its new id
 *
 * A lock held across recovery would never be released again otherwise. Its shape is that of
 * allocator/lock_shape.h; the epoch says which pages may hold an owner's word (pool_mark.c), so
 * no other memory is touched. Whoever waits for a lock in the kernel asks again after
 * rt_sigreturn, and the kernel finds the new id.
 */
#include "allocator/lock_shape.h"
#include "restorer.h"

#include <sys/mman.h>

static const struct ph_thread_pm *threads;
static uint64_t nthreads;

/** The new id of the thread that had @p old; 0: no thread had it. */
static int32_t new_id(int32_t old)
{
    for (uint64_t i = 0; i < nthreads; i++)
        if ((int32_t)threads[i].tid == old)
            return *(const volatile int32_t *)threads[i].tid_address;
    return 0;
}

static bool fix_mutex(struct ph_mutex *m)
{
    bool id_in_word = ph_id_mutex_shape(m);
    int32_t id = id_in_word || ph_mutex_shape(m) ? new_id(m->owner) : 0;
    if (!id)
        return false;
    if (id_in_word)
        m->lock = (m->lock & ~PH_LOCK_ID) | (uint32_t)id;
    m->owner = id;
    return true;
}

static bool fix_rwlock(struct ph_rwlock *l)
{
    int32_t id = ph_rwlock_shape(l) ? new_id(l->cur_writer) : 0;
    if (id)
        l->cur_writer = id;
    return id != 0;
}

/** Locks whose owner's word is in [start, end). They may reach beyond, up to where writable
 * memory, [from, to), ends. */
static void search(uint64_t start, uint64_t end, uint64_t from, uint64_t to)
{
    for (uint64_t at = start; at < end; at += 8) {
        uint64_t mutex = at - PH_MUTEX_OWNER, rwlock = at - PH_RWLOCK_OWNER;
        if (*(const int32_t *)at <= 0)
            continue;
        if (mutex >= from && mutex + sizeof(struct ph_mutex) <= to &&
            fix_mutex((struct ph_mutex *)mutex))
            continue; /* one word, one owner: its new id may be another's old one */
        if (rwlock >= from && rwlock + sizeof(struct ph_rwlock) <= to)
            fix_rwlock((struct ph_rwlock *)rwlock);
    }
}

static bool writable(const struct ph_vma_pm *v)
{
    return (v->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
}

/** Where what there is of a mapping ends: past the end of its file there is nothing. */
static uint64_t end_of(const struct ph_vma_pm *v)
{
    uint64_t size =
        v->size > v->offset ? (v->size - v->offset + PH_PAGE - 1) & ~(PH_PAGE - 1) : 0;
    bool of_file = (v->kind == PH_VMA_FILE || v->kind == PH_VMA_SHARED_FILE) && v->size;
    return of_file && size < v->end - v->start ? v->start + size : v->end;
}

void ph_r_fix_owners(const struct ph_plan *plan, const struct ph_record_pm *record)
{
    const struct ph_vma_pm *v = ph_r_table(&record->vmas), *end = v + record->vmas.count;
    const struct ph_page_span *span =
        (const struct ph_page_span *)((const unsigned char *)plan + plan->marked_offset);
    const struct ph_page_span *spans_end = span + plan->nmarked;
    threads = ph_r_table(&record->threads);
    nthreads = record->threads.count;
    while (v < end) {
        /* Mappings that follow each other are one piece of memory. */
        uint64_t from = v->start, to = end_of(v);
        bool search_it = writable(v);
        for (v++; search_it && v < end && v->start == to && writable(v); v++)
            to = end_of(v);
        for (; span < spans_end && span->start < to; span++) {
            uint64_t start = span->start > from ? span->start : from;
            if (search_it && start < span->end)
                search(start, span->end < to ? span->end : to, from, to);
            if (span->end > to)
                break; /* the next mapping has the rest */
        }
    }
}
