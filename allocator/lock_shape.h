/* SPDX-License-Identifier: MIT */
/*
 * lock_shape.h - what a held lock of glibc's looks like in memory
 *
 * glibc's recursive and error-checking mutexes compare the caller's thread id with the owner's,
 * and a read-write lock tells its writer from its readers by it; robust mutexes and those with
 * priority inheritance hold the id in the lock word too. After a recovery threads have other
 * ids, so all of these must be found and changed. Nobody lists the locks of a process: they are
 * known by their shape alone (struct __pthread_mutex_s and struct __pthread_rwlock_arch_t of
 * glibc, x86-64). All fields must fit, not only the id, so that data which happens to look
 * alike stays as it is. A lock is at a multiple of 8 bytes.
 *
 * Used without libc by the restorer, and by the pool, which notes for each page that it stores
 * whether it may hold the owner of a lock (pool_mark.c).
 */
#ifndef PH_LOCK_SHAPE_H
#define PH_LOCK_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

struct ph_mutex {
    uint32_t lock, count;
    int32_t owner;
    uint32_t nusers;
    int32_t kind;
    int16_t spins, elision;
    uint64_t prev, next;
};
_Static_assert(sizeof(struct ph_mutex) == 40, "as in glibc");

struct ph_rwlock {
    uint32_t readers, writers, wrphase_futex, writers_futex, pad3, pad4;
    int32_t cur_writer, shared;
    uint64_t pad1; /* its first byte: elision, in old versions */
    uint64_t pad2;
    uint32_t flags, end;
};
_Static_assert(sizeof(struct ph_rwlock) == 56, "as in glibc");

#define PH_MUTEX_OWNER     8 /* where in the lock the word with the owner is, bytes */
#define PH_RWLOCK_OWNER    24
#define PH_TID_BITS        22 /* ids are smaller: PID_MAX_LIMIT, include/linux/threads.h */

#define PH_LOCK_RECURSIVE  1
#define PH_LOCK_ERRORCHECK 2
#define PH_LOCK_ROBUST     0x10
#define PH_LOCK_INHERIT    0x20
#define PH_LOCK_SHARED     0x80
#define PH_LOCK_ELISION    0x300       /* PTHREAD_MUTEX_ELISION_NP and NO_ELISION_NP */
#define PH_LOCK_ID         0x3fffffffu /* FUTEX_TID_MASK */
#define PH_RW_WRITE_PHASE  1u          /* PTHREAD_RWLOCK_WRPHASE */
#define PH_RW_WRITE_LOCKED 2u          /* PTHREAD_RWLOCK_WRLOCKED */

static inline bool ph_is_tid(int32_t id)
{
    return id > 0 && id >> PH_TID_BITS == 0;
}

/** Recursive or error-checking, and held. */
static inline bool ph_mutex_shape(const struct ph_mutex *m)
{
    int kind = m->kind & ~PH_LOCK_ELISION;
    return ph_is_tid(m->owner) && (kind == PH_LOCK_RECURSIVE || kind == PH_LOCK_ERRORCHECK) &&
           (m->lock == 1 || m->lock == 2) && m->nusers == 1 && m->spins >= 0 &&
           m->elision == 0 && m->prev == 0 && m->next == 0 &&
           (kind == PH_LOCK_RECURSIVE ? m->count >= 1 : m->count == 0);
}

/** Robust or with priority inheritance, and held: the id is in the lock word, the kernel's
 * business too. */
static inline bool ph_id_mutex_shape(const struct ph_mutex *m)
{
    int kind = m->kind & ~(PH_LOCK_ELISION | PH_LOCK_SHARED);
    bool robust = kind & PH_LOCK_ROBUST;
    return ph_is_tid(m->owner) && (kind & (PH_LOCK_ROBUST | PH_LOCK_INHERIT)) &&
           (kind & ~(PH_LOCK_ROBUST | PH_LOCK_INHERIT)) <= PH_LOCK_ERRORCHECK &&
           (m->lock & PH_LOCK_ID) == (uint32_t)m->owner && m->nusers == 1 && m->spins == 0 &&
           m->elision == 0 && (robust || (m->prev == 0 && m->next == 0));
}

/** Held by a writer. */
static inline bool ph_rwlock_shape(const struct ph_rwlock *l)
{
    uint32_t held = PH_RW_WRITE_PHASE | PH_RW_WRITE_LOCKED;
    return ph_is_tid(l->cur_writer) && (l->readers & held) == held && l->shared <= 1 &&
           l->shared >= 0 && l->pad3 == 0 && l->pad4 == 0 && l->pad1 >> 8 == 0 &&
           l->pad2 == 0 && l->flags <= 2 && (l->wrphase_futex & ~2u) == 1 &&
           (l->writers_futex & ~2u) <= 1;
}

#endif
