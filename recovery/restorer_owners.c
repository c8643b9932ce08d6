/* SPDX-License-Identifier: MIT */
/*
 * restorer_owners.c - locks that remember their owner by thread id
 *
 * glibc's recursive and error-checking mutexes compare the caller's id with the owner's, and a
 * read-write lock tells its writer from its readers by it. A lock held across recovery would
 * never be released again. Nobody lists the locks of a process, so memory is searched for their
 * shape (struct __pthread_mutex_s and struct __pthread_rwlock_arch_t of glibc, x86-64): all
 * fields must fit, not only the id, so that data which happens to hold the number stays as it
 * is. Mutexes with priority inheritance and robust ones hold the id in the
 * lock word itself; waiters ask the kernel again after rt_sigreturn, and it finds the new one.
 */
#include "restorer.h"

#include <sys/mman.h>

struct mutex {
    uint32_t lock, count;
    int32_t owner;
    uint32_t nusers;
    int32_t kind;
    int16_t spins, elision;
    uint64_t prev, next;
};
_Static_assert(sizeof(struct mutex) == 40, "as in glibc");

struct rwlock {
    uint32_t readers, writers, wrphase_futex, writers_futex, pad3, pad4;
    int32_t cur_writer, shared;
    uint64_t pad1, pad2;
    uint32_t flags;
};

#define KIND_RECURSIVE  1
#define KIND_ERRORCHECK 2
#define KIND_ROBUST     0x10
#define KIND_INHERIT    0x20
#define KIND_SHARED     0x80
#define KIND_ELISION    0x300       /* PTHREAD_MUTEX_ELISION_NP and NO_ELISION_NP */
#define LOCK_ID         0x3fffffffu /* FUTEX_TID_MASK */
#define RW_WRITE_PHASE  1u          /* PTHREAD_RWLOCK_WRPHASE */
#define RW_WRITE_LOCKED 2u          /* PTHREAD_RWLOCK_WRLOCKED */

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

static bool mutex_shape(const struct mutex *m)
{
    int kind = m->kind & ~KIND_ELISION;
    return (kind == KIND_RECURSIVE || kind == KIND_ERRORCHECK) &&
           (m->lock == 1 || m->lock == 2) && m->owner > 0 && m->nusers == 1 && m->spins >= 0 &&
           m->elision == 0 && m->prev == 0 && m->next == 0 &&
           (kind == KIND_RECURSIVE ? m->count >= 1 : m->count == 0);
}

/** Robust or with priority inheritance: the id is in the lock word, the kernel's business too.
 */
static bool id_mutex_shape(const struct mutex *m)
{
    int kind = m->kind & ~(KIND_ELISION | KIND_SHARED);
    bool robust = kind & KIND_ROBUST;
    return (kind & (KIND_ROBUST | KIND_INHERIT)) &&
           (kind & ~(KIND_ROBUST | KIND_INHERIT)) <= KIND_ERRORCHECK &&
           (m->lock & LOCK_ID) == (uint32_t)m->owner && m->nusers == 1 && m->spins == 0 &&
           m->elision == 0 && (robust || (m->prev == 0 && m->next == 0));
}

static bool rwlock_shape(const struct rwlock *l)
{
    uint32_t held = RW_WRITE_PHASE | RW_WRITE_LOCKED;
    return (l->readers & held) == held && l->cur_writer > 0 && l->shared <= 1 &&
           l->shared >= 0 && l->pad3 == 0 && l->pad4 == 0 && l->pad2 == 0 && l->flags <= 2 &&
           (l->wrphase_futex & ~2u) == 1 && (l->writers_futex & ~2u) <= 1;
}

/**
 * Locks that begin in [start, end). They may reach over the end of a run, whose neighbour in
 * memory lies elsewhere in the pool, but not over @p limit, where readable memory ends.
 */
static void search(uint64_t start, uint64_t end, uint64_t limit)
{
    for (uint64_t at = start; at < end && at + sizeof(struct mutex) <= limit; at += 8) {
        struct mutex *m = (struct mutex *)at;
        struct rwlock *l = (struct rwlock *)at;
        if (m->owner > 0 && mutex_shape(m)) {
            int32_t id = new_id(m->owner);
            if (id)
                m->owner = id;
        } else if (m->owner > 0 && id_mutex_shape(m)) {
            int32_t id = new_id(m->owner);
            if (id) {
                m->lock = (m->lock & ~LOCK_ID) | (uint32_t)id;
                m->owner = id;
            }
        } else if (at + sizeof *l <= limit && l->cur_writer > 0 && rwlock_shape(l)) {
            int32_t id = new_id(l->cur_writer);
            if (id)
                l->cur_writer = id;
        }
    }
}

static bool writable(const struct ph_vma_pm *v)
{
    return (v->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
}

/** The end of the writable memory that @p v begins or is part of. */
static uint64_t writable_end(const struct ph_vma_pm *v, const struct ph_vma_pm *end)
{
    while (v + 1 < end && v[1].start == v->end && writable(&v[1]))
        v++;
    return v->end;
}

void ph_r_fix_owners(const struct ph_plan *plan, const struct ph_record_pm *record)
{
    const unsigned char *base = (const unsigned char *)record;
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)(base + record->vmas.offset);
    const struct ph_vma_pm *end = v + record->vmas.count;
    const struct ph_run *run =
        (const struct ph_run *)((const unsigned char *)plan + plan->runs_offset);
    const struct ph_run *runs_end = run + plan->nruns;
    threads = (const struct ph_thread_pm *)(base + record->threads.offset);
    nthreads = record->threads.count;
    for (; v < end; v++) {
        while (run < runs_end && run->addr + run->npages * PH_PAGE <= v->start)
            run++;
        if (!writable(v))
            continue;
        uint64_t limit = writable_end(v, end);
        for (const struct ph_run *r = run; r < runs_end && r->addr < v->end; r++) {
            uint64_t from = r->addr > v->start ? r->addr : v->start;
            uint64_t to = r->addr + r->npages * PH_PAGE;
            search(from, to < v->end ? to : v->end, limit);
        }
    }
}
