/* SPDX-License-Identifier: MIT */
/*
 * heap_local.c - a thread's slabs
 *
 * Every slab in use belongs to one *local*, and only the thread that has that local touches
 * the slab's free[], cursor, stamp and list links. So a thread allocates and frees its own
 * blocks without a lock or an atomic read-modify-write. (heap_fast.h holds the fast paths; here
 * is the rest.)
 *
 * *Hints* make them fast: of each class the thread remembers, as a stack, some slots that were
 * free. A free adds its slot; when the newest hint is of no use, new ones are taken from the
 * current slab. So what was freed last, which is in the cache and dirty in this epoch, is
 * handed out first, whichever slab it lies in, and its address is known without a search. The
 * bit in free[] alone says whether a slot is free: a hint that is old or double does no harm,
 * none is needed, and walking, forking and recovery need not know of them. Only when a slab
 * leaves its owner are the hints at it removed (S5).
 *
 * A free by another thread sets the slot's bit in remote[] and, if it is the first since the
 * owner last looked, puts the slab on the pending list of the slab's owner. The owner takes
 * the whole list when its current slab is exhausted. The owner may have changed in between;
 * whoever finds a foreign slab on its pending list passes it on.
 *
 * When a thread ends, its slabs become *orphans*: they belong to local 0, which no thread has
 * and which is touched under slab_lock only. A thread that needs a slab adopts an orphan of
 * the class before it takes a new one. The local itself goes to the next new thread. (A remote
 * free that read the old owner just before the thread ended waits on the list of a local
 * without a thread until a thread takes that local: a slab may be reused late, never lost.)
 *
 * Locals are numbered by us: kernel thread ids change on recovery, these numbers, and the
 * thread-local that holds one, do not.
 *
 * Placement: partial lists are kept hottest first: a slab moves to the front when it is first
 * freed to in an epoch, and its stamp says so. In CPython a freed block's page is dirty, as the
 * reference count in it has just been written. So: hot slabs first; when all are cold, a fresh
 * slab, as long as not more than an eighth of the class's slabs are partial; else, of the
 * coldest few, the one with the most free slots, since it costs the fewest pages per block.
 */
#include "heap_fast.h"

#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define CANDIDATES 4 /* slabs looked at to find one that lasts a while */

#define NOBODY     (PH_NO_OWNER - 1) /* the number of a thread that has no local */

/* What lies below all hints of a class: a hint that is never of use. */
static uint64_t no_bits;
#define EMPTY ((struct ph_hint){NULL, (uintptr_t)&no_bits})

/* What a thread without a local has for its hints; the last of its like, so none is added. */
static struct ph_hint none[PH_HINTS]
    __attribute__((aligned(sizeof(struct ph_hint[PH_HINTS])))) = {
        [PH_HINTS - 1] = {NULL, (uintptr_t)&no_bits}};

__thread struct ph_self ph_self = {
    .number = NOBODY,
    .top = {[0 ... PH_CLASSES - 1] = &none[PH_HINTS - 1]},
};

static pthread_key_t exit_key;

/* ---- lists --------------------------------------------------------------------------- */

static struct ph_slab_list *list_of(struct ph_local *local, const struct ph_slab *s)
{
    return s->state == PH_SLAB_FULL ? &local->full[s->class] : &local->partial[s->class];
}

/* Other threads look whether the state is free (ph_heap_free_remote, block_size), no more. */
static void set_state(struct ph_slab *s, uint8_t state)
{
    __atomic_store_n(&s->state, state, __ATOMIC_RELAXED);
}

static void list_insert(struct ph_local *local, struct ph_slab *s, uint8_t state)
{
    set_state(s, state);
    if (state == PH_SLAB_FULL) /* so that the next free comes to ph_local_freed (S3) */
        s->stamp = __atomic_load_n(&ph_heap_epoch, __ATOMIC_RELAXED) - 1;
    struct ph_slab_list *list = list_of(local, s);
    s->prev = 0;
    s->next = list->head;
    if (list->head)
        ph_slabs[list->head].prev = ph_slab_index(s);
    else
        list->tail = ph_slab_index(s);
    list->head = ph_slab_index(s);
    list->count++;
}

static void list_remove(struct ph_local *local, struct ph_slab *s)
{
    struct ph_slab_list *list = list_of(local, s);
    if (s->prev)
        ph_slabs[s->prev].next = s->next;
    else
        list->head = s->next;
    if (s->next)
        ph_slabs[s->next].prev = s->prev;
    else
        list->tail = s->prev;
    s->next = s->prev = 0;
    list->count--;
}

static void make_current(struct ph_local *local, struct ph_slab *s)
{
    set_state(s, PH_SLAB_CURRENT);
    s->stamp = __atomic_load_n(&ph_heap_epoch, __ATOMIC_RELAXED);
    local->current[s->class] = s;
}

/* ---- hints --------------------------------------------------------------------------- */

/* Take hints at the next free slots of the slab, so that the first of them is the newest.
 * @return false when there is none. */
static bool take_hints(struct ph_local *local, struct ph_slab *s)
{
    uint32_t found[PH_HINTS - 1];
    unsigned n = 0, w = s->cursor;
    for (unsigned i = 0; i < s->words; i++, w = w + 1 < s->words ? w + 1 : 0) {
        uint64_t bits = s->free[w] & ph_slab_valid(s, w);
        for (; bits && n < PH_HINTS - 1; bits &= bits - 1)
            found[n++] = w * 64 + (unsigned)__builtin_ctzll(bits);
        if (n == PH_HINTS - 1)
            break;
    }
    if (!n)
        return false;
    s->cursor = (uint16_t)w;
    struct ph_hint *hint = local->hint[s->class];
    ph_self.top[s->class] = &hint[n];
    *hint++ = EMPTY;
    while (n--)
        *hint++ = (struct ph_hint){(void *)(s->base + found[n] * (uint64_t)s->size),
                                   ph_hint_bit(s, found[n])};
    return true;
}

/* The slab is to leave its owner. */
static void drop_hints(struct ph_local *local, const struct ph_slab *s)
{
    struct ph_hint *hint = local->hint[s->class];
    for (unsigned i = 1; i < PH_HINTS; i++)
        if (hint[i].block && ph_slab_of(hint[i].block) == s)
            hint[i] = EMPTY;
}

/* ---- frees by other threads ---------------------------------------------------------- */

static void pending_push(struct ph_slab *s)
{
    uint32_t owner = __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
    if (owner == PH_NO_OWNER) /* became free: its next owner will hear of it by the orphans */
        owner = PH_ORPHANS;
    uint32_t *head = &ph_locals[owner].pending;
    uint32_t old = __atomic_load_n(head, __ATOMIC_RELAXED);
    do
        s->pending_next = old;
    while (!__atomic_compare_exchange_n(head, &old, ph_slab_index(s), true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
}

bool ph_local_free_remote(struct ph_slab *s, uint32_t slot)
{
    uint64_t bit = UINT64_C(1) << slot % 64;
    if (__atomic_load_n(&s->free[slot / 64], __ATOMIC_RELAXED) & bit)
        return false;
    if (__atomic_fetch_or(&s->remote[slot / 64], bit, __ATOMIC_SEQ_CST) & bit)
        return false;
    /* The bit is set before pending is read, and collect() clears pending before it reads the
     * bits: so the bit is seen by the collection under way, or by one that we ask for. */
    if (!__atomic_load_n(&s->pending, __ATOMIC_SEQ_CST) &&
        !__atomic_exchange_n(&s->pending, 1, __ATOMIC_SEQ_CST))
        pending_push(s);
    return true;
}

/* Move the bits of remote[] to free[]. In between a slot counts as live, which is safe. */
static void collect(struct ph_slab *s)
{
    __atomic_exchange_n(&s->pending, 0, __ATOMIC_SEQ_CST);
    for (unsigned w = 0; w < s->words; w++) {
        if (!__atomic_load_n(&s->remote[w], __ATOMIC_SEQ_CST))
            continue;
        uint64_t bits = __atomic_exchange_n(&s->remote[w], 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&s->free[w], s->free[w] | bits, __ATOMIC_RELAXED);
    }
}

/* Put a slab of @p local, in which slots may have been freed, where it belongs.
 * @param locked whether slab_lock is held. */
static void settle(struct ph_local *local, struct ph_slab *s, bool locked)
{
    if (s->state == PH_SLAB_FULL && !ph_slab_any_free(s))
        return;
    s->stamp = __atomic_load_n(&ph_heap_epoch, __ATOMIC_RELAXED);
    if (s->state == PH_SLAB_CURRENT)
        return;
    list_remove(local, s);
    if (!ph_slab_all_free(s)) {
        list_insert(local, s, PH_SLAB_PARTIAL);
        return;
    }
    drop_hints(local, s);
    if (!locked)
        ph_lock_acquire(&ph_heap.slab_lock);
    ph_slab_give(s);
    if (!locked)
        ph_lock_release(&ph_heap.slab_lock);
}

/* Collect what others have freed. Of the orphans: slab_lock is held. */
static void drain_pending(struct ph_local *local)
{
    uint32_t index = __atomic_exchange_n(&local->pending, 0, __ATOMIC_SEQ_CST);
    while (index) {
        struct ph_slab *s = &ph_slabs[index];
        index = s->pending_next;
        uint32_t owner = __atomic_load_n(&s->owner, __ATOMIC_ACQUIRE);
        if (owner == local->number) {
            collect(s);
            settle(local, s, local->number == PH_ORPHANS);
        } else if (owner == PH_NO_OWNER && local->number == PH_ORPHANS) {
            /* Under slab_lock, and free: all its bits were collected with others. */
            __atomic_store_n(&s->pending, 0, __ATOMIC_SEQ_CST);
        } else {
            pending_push(s);
        }
    }
}

/* ---- frees by the owner -------------------------------------------------------------- */

void ph_local_freed(struct ph_slab *s)
{
    settle(ph_self.local, s, false);
}

void ph_local_freed_word(struct ph_slab *s)
{
    if (s->state != PH_SLAB_CURRENT && ph_slab_all_free(s))
        settle(ph_self.local, s, false);
}

/* ---- threads come and go ------------------------------------------------------------- */

static void reset(struct ph_local *local, uint32_t number)
{
    local->number = number;
    memset(local->current, 0, sizeof local->current);
    memset(local->partial, 0, sizeof local->partial);
    memset(local->full, 0, sizeof local->full);
}

/* Memory for @p n locals, and for one more (used_spans in heap_walk.c). */
static bool reach_locals(uint32_t n)
{
    return ph_space_reach(PH_PART_LOCALS,
                          PH_LOCAL_TABLE + ((uint64_t)n + 1) * sizeof(struct ph_local));
}

/* The calling thread's local; NULL when there are too many threads, or no memory. */
static struct ph_local *attach(void)
{
    if (!ph_heap.ready)
        return NULL;
    struct ph_local *local = NULL;
    ph_lock_acquire(&ph_heap.slab_lock);
    if (ph_heap.idle_local) {
        local = &ph_locals[ph_heap.idle_local];
        ph_heap.idle_local = local->idle_next;
    } else if (ph_heap.nlocals < PH_LOCAL_MAX && reach_locals(ph_heap.nlocals + 1)) {
        local = &ph_locals[ph_heap.nlocals];
        reset(local, ph_heap.nlocals);
        ph_heap.nlocals++;
    }
    if (local)
        local->in_use = 1;
    ph_lock_release(&ph_heap.slab_lock);
    if (!local)
        return NULL;
    ph_self.local = local;
    ph_self.number = local->number;
    pthread_setspecific(exit_key, local);
    return local;
}

/* Make a slab that is on no list an orphan. @pre slab_lock is held. */
static void orphan(struct ph_slab *s)
{
    struct ph_local *orphans = &ph_locals[PH_ORPHANS];
    __atomic_store_n(&s->owner, PH_ORPHANS, __ATOMIC_RELEASE);
    if (ph_slab_all_free(s))
        ph_slab_give(s);
    else
        list_insert(orphans, s, ph_slab_any_free(s) ? PH_SLAB_PARTIAL : PH_SLAB_FULL);
}

static void orphan_list(struct ph_local *from, struct ph_slab_list *list)
{
    while (list->tail) { /* from the coldest, so that the order stays */
        struct ph_slab *s = &ph_slabs[list->tail];
        list_remove(from, s);
        orphan(s);
    }
}

/* The thread that has @p arg ends. If it allocates again it gets a local anew. */
static void detach(void *arg)
{
    struct ph_local *local = arg;
    ph_self.local = NULL;
    ph_self.number = NOBODY;
    for (unsigned c = 0; c < PH_CLASSES; c++)
        ph_self.top[c] = &none[PH_HINTS - 1];

    ph_lock_acquire(&ph_heap.slab_lock);
    for (unsigned c = 0; c < PH_CLASSES; c++) {
        orphan_list(local, &local->full[c]);
        orphan_list(local, &local->partial[c]);
        if (!local->current[c])
            continue; /* no slab was ever needed, so there are no hints either */
        orphan(local->current[c]);
        local->current[c] = NULL;
        memset(local->hint[c], 0, sizeof local->hint[c]);
    }
    drain_pending(local); /* passes all of it on to the orphans */
    local->in_use = 0;
    local->idle_next = ph_heap.idle_local;
    ph_heap.idle_local = local->number;
    ph_lock_release(&ph_heap.slab_lock);
}

int ph_local_init(void)
{
    if (!reach_locals(1) || !ph_slab_reach(1))
        return PH_ENOMEM;
    reset(&ph_locals[PH_ORPHANS], PH_ORPHANS);
    ph_heap.nlocals = 1;
    ph_heap.nslabs = 1;
    return pthread_key_create(&exit_key, detach) ? PH_ENOMEM : 0;
}

static bool any_remote(const struct ph_slab *s)
{
    for (unsigned w = 0; w < s->words; w++)
        if (s->remote[w])
            return true;
    return false;
}

/* Collect what a thread that does not exist in this process may have left half done. */
static void collect_all(struct ph_slab *s)
{
    s->pending = 0;
    for (unsigned w = 0; w < s->words; w++) {
        s->free[w] |= s->remote[w];
        s->remote[w] = 0;
    }
}

void ph_local_after_fork(void)
{
    struct ph_local *own = ph_self.local;
    ph_heap.idle_local = 0;
    for (uint32_t i = 0; i < ph_heap.nlocals; i++) {
        struct ph_local *local = &ph_locals[i];
        local->pending = 0;
        if (local == own)
            continue;
        if (local->in_use)
            memset(local->hint, 0, sizeof local->hint);
        reset(local, i);
        if (i == PH_ORPHANS)
            continue;
        local->in_use = 0;
        local->idle_next = ph_heap.idle_local;
        ph_heap.idle_local = i;
    }
    for (uint32_t i = 1; i < ph_heap.nslabs; i++) {
        struct ph_slab *s = &ph_slabs[i];
        if (s->state == PH_SLAB_FREE) {
            if (s->pending)
                s->pending = 0;
        } else if (s->owner != ph_self.number) {
            collect_all(s);
            s->next = s->prev = 0;
            orphan(s);
        } else if (s->pending || any_remote(s)) {
            collect_all(s);
            settle(own, s, true);
        }
    }
}

/* ---- allocation ---------------------------------------------------------------------- */

/* The orphan of class @p c to adopt, or a new slab. NULL when the range is full. */
static struct ph_slab *acquire(struct ph_local *local, unsigned c)
{
    struct ph_local *orphans = &ph_locals[PH_ORPHANS];
    struct ph_slab *s;
    ph_lock_acquire(&ph_heap.slab_lock);
    if (__atomic_load_n(&orphans->pending, __ATOMIC_RELAXED))
        drain_pending(orphans);
    if (orphans->partial[c].head) {
        s = &ph_slabs[orphans->partial[c].head];
        list_remove(orphans, s);
        __atomic_store_n(&s->owner, local->number, __ATOMIC_RELEASE);
    } else {
        s = ph_slab_take(c, local->number);
    }
    ph_lock_release(&ph_heap.slab_lock);
    return s;
}

/* Of the slab at @p index and the next few the one with the most free slots, or the first that
 * lasts a while. */
static struct ph_slab *emptiest(uint32_t index, bool towards_head)
{
    struct ph_slab *best = &ph_slabs[index];
    uint32_t stamp = best->stamp;
    unsigned most = 0;
    for (int i = 0; i < CANDIDATES && index && most < 2 * PH_HINTS; i++) {
        struct ph_slab *s = &ph_slabs[index];
        unsigned n = towards_head || s->stamp == stamp ? ph_slab_count_free(s) : 0;
        if (n > most) {
            best = s;
            most = n;
        }
        index = towards_head ? s->prev : s->next;
    }
    return best;
}

/* A slab of class @p c with a free slot, on no list. */
static struct ph_slab *choose(struct ph_local *local, unsigned c)
{
    struct ph_slab_list *partial = &local->partial[c];
    while (partial->head) {
        struct ph_slab *s;
        if (ph_slabs[partial->head].stamp ==
            __atomic_load_n(&ph_heap_epoch, __ATOMIC_RELAXED)) {
            s = emptiest(partial->head, false);
        } else {
            if (partial->count <= 1 + (partial->count + local->full[c].count) / 8) {
                s = acquire(local, c);
                if (s)
                    return s;
            }
            s = emptiest(partial->tail, true);
        }
        list_remove(local, s);
        if (ph_slab_any_free(s))
            return s;
        list_insert(local, s, PH_SLAB_FULL); /* by hints its last slots were taken */
    }
    return acquire(local, c);
}

/* Where hints are taken from next, with a free slot. NULL when the range is full. */
static struct ph_slab *next_current(struct ph_local *local, unsigned c)
{
    struct ph_slab *next = choose(local, c), *s = local->current[c];
    if (!next)
        return NULL;
    if (s)
        list_insert(local, s, PH_SLAB_FULL);
    make_current(local, next);
    return next;
}

void *ph_local_alloc_slow(unsigned c)
{
    struct ph_local *local = ph_self.local;
    if (!local && !(local = attach())) {
        errno = ENOMEM;
        return NULL;
    }
    struct ph_slab *s = local->current[c];
    bool found = s && take_hints(local, s);
    if (!found && __atomic_load_n(&local->pending, __ATOMIC_RELAXED)) {
        drain_pending(local);
        found = s && take_hints(local, s);
    }
    if (!found) {
        s = next_current(local, c);
        if (!s) {
            errno = ENOMEM;
            return NULL;
        }
        take_hints(local, s);
    }
    return ph_slot_alloc(c);
}
