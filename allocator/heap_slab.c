/* SPDX-License-Identifier: MIT */
/*
 * heap_slab.c - the pool of slabs
 *
 * A slab is 64 KiB of slab space and the record of the same index in the table. A slab without
 * live blocks goes back to the pool and may serve any class next; those used last are reused
 * first, as their memory is populated and probably dirty in this epoch anyway.
 *
 * While a record is being prepared its state is free, so the walker counts none of its pages;
 * the store of another state makes it a slab of its class, whole (S1 to S3).
 */
#include "heap_internal.h"

#include <string.h>

bool ph_slab_reach(uint32_t n)
{
    return ph_space_reach(PH_PART_SLABS, PH_SLABS + ((uint64_t)n << PH_SLAB_SHIFT)) &&
           ph_space_reach(PH_PART_SLAB_TABLE,
                          PH_SLAB_TABLE + ((uint64_t)n + 1) * sizeof(struct ph_slab));
}

struct ph_slab *ph_slab_take(unsigned c, uint32_t owner)
{
    uint32_t index = ph_heap.slab_pool;
    struct ph_slab *s;
    if (index) {
        s = &ph_slabs[index];
        ph_heap.slab_pool = s->next;
    } else {
        index = ph_heap.nslabs;
        if (index == PH_SLAB_MAX || !ph_slab_reach(index + 1))
            return NULL;
        s = &ph_slabs[index];
        s->owner = PH_NO_OWNER;
        ph_heap.nslabs = index + 1;
    }
    uint32_t size = ph_class_size[c];
    s->base = PH_SLABS + ((uint64_t)index << PH_SLAB_SHIFT);
    s->size = size;
    s->inverse = (uint32_t)(((UINT64_C(1) << 32) + size - 1) / size);
    s->nslots = (uint16_t)(PH_SLAB_SIZE / size);
    s->words = (uint16_t)((s->nslots + 63) / 64);
    s->class = (uint8_t)c;
    s->cursor = 0;
    s->busy = 0;
    s->stamp = __atomic_load_n(&ph_heap_epoch, __ATOMIC_RELAXED);
    s->next = s->prev = 0;
    memset(s->free, 0xff, sizeof s->free);
    /* remote[] is zero: every bit has been collected before the slab could become free. */
    __atomic_store_n(&s->owner, owner, __ATOMIC_RELAXED);
    __atomic_store_n(&s->state, PH_SLAB_CURRENT, __ATOMIC_RELEASE);
    return s;
}

void ph_slab_give(struct ph_slab *s)
{
    __atomic_store_n(&s->state, PH_SLAB_FREE, __ATOMIC_RELEASE);
    __atomic_store_n(&s->owner, PH_NO_OWNER, __ATOMIC_RELEASE);
    s->prev = 0;
    s->next = ph_heap.slab_pool;
    ph_heap.slab_pool = ph_slab_index(s);
}

unsigned ph_slab_count_free(const struct ph_slab *s)
{
    unsigned n = 0;
    for (unsigned w = 0; w < s->words; w++)
        n += (unsigned)__builtin_popcountll(s->free[w]);
    return n - (s->words * 64u - s->nslots); /* S2: beyond nslots */
}

bool ph_slab_any_free(const struct ph_slab *s)
{
    for (unsigned w = 0; w < s->words; w++)
        if (s->free[w] & ph_slab_valid(s, w))
            return true;
    return false;
}

bool ph_slab_all_free(struct ph_slab *s)
{
    if (~s->free[s->busy])
        return false;
    for (unsigned w = 0; w < s->words; w++) {
        if (~s->free[w]) {
            s->busy = (uint16_t)w;
            return false;
        }
    }
    return true;
}

/* Whether a slot in [first, last] is live. */
static inline bool any_live(const struct ph_slab *s, unsigned first, unsigned last)
{
    for (unsigned w = first / 64; w <= last / 64; w++) {
        uint64_t live = ~(__atomic_load_n(&s->free[w], __ATOMIC_RELAXED) |
                          __atomic_load_n(&s->remote[w], __ATOMIC_RELAXED));
        if (w == first / 64)
            live &= ~UINT64_C(0) << first % 64;
        if (w == last / 64)
            live &= ~UINT64_C(0) >> (63 - last % 64);
        if (live)
            return true;
    }
    return false;
}

bool ph_slab_page_live(const struct ph_slab *s, unsigned page)
{
    if (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == PH_SLAB_FREE)
        return false;
    unsigned first = (unsigned)(page * PH_PAGE * s->inverse >> 32);
    unsigned last = (unsigned)((page * PH_PAGE + PH_PAGE - 1) * s->inverse >> 32);
    if (first >= s->nslots)
        return false;
    return any_live(s, first, last < s->nslots ? last : s->nslots - 1u);
}
