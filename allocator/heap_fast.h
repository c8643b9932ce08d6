/* SPDX-License-Identifier: MIT */
/*
 * heap_fast.h - one small allocation and one free, from end to end, to be inlined
 *
 * The size gives the class, the class the thread's newest hint, the hint the block. Whether it
 * still is free its bit in free[] says; clearing that bit makes the block live. Only a branch
 * waits for the bit, and that is foreseen: the program has the address after two loads. A free
 * finds the slab by address, the slot by multiplication, sets the bit, which makes the block
 * dead, and leaves a hint. Neither touches the block's own page. What is not that simple goes
 * to heap_local.c.
 */
#ifndef PH_HEAP_FAST_H
#define PH_HEAP_FAST_H

#include "heap_internal.h"

#pragma GCC visibility push(hidden)

/** Free a block of another owner, or die because it is none. */
void ph_heap_free_remote(struct ph_slab *s, uint32_t slot, void *p);
_Noreturn void ph_heap_bad_free(void *p);

#pragma GCC visibility pop

/** What a hint at @p slot has as its bit. */
static inline uint64_t ph_hint_bit(const struct ph_slab *s, uint32_t slot)
{
    return (uintptr_t)&s->free[slot / 64] | (uint64_t)slot << 58;
}

static inline void *ph_slot_alloc(unsigned c)
{
    struct ph_hint *top = ph_self.top[c];
    void *block = top->block;
    uint64_t turned = top->bit << 6 | top->bit >> 58; /* one instruction */
    uint64_t *word = (uint64_t *)(turned >> 6);
    uint64_t bits = *word;
    if (PH_UNLIKELY(!(bits >> (turned & 63) & 1)))
        return ph_local_alloc_slow(c);
    __atomic_store_n(word, bits & ~(UINT64_C(1) << (turned & 63)), __ATOMIC_RELAXED);
    PH_BARRIER();
    ph_self.top[c] = top - 1;
    return block;
}

static inline bool ph_in_slabs(const void *p)
{
    return (uintptr_t)p - PH_SLABS < PH_HEAP_EXTENTS - PH_SLABS;
}

static inline struct ph_slab *ph_slab_of(const void *p)
{
    return &ph_slabs[((uintptr_t)p - PH_SLABS) >> PH_SLAB_SHIFT];
}

/**
 * The slot that begins at @p p; UINT32_MAX if none does. A slot beyond nslots is never live.
 * With offset = n * size + r and inverse * size = 2^32 + e, e < size, the product's lower half
 * is n * e < 2^16 when r = 0, and at least inverse >= 2^17 otherwise.
 */
static inline uint32_t ph_slot_at(const struct ph_slab *s, const void *p)
{
    uint64_t product = ((uintptr_t)p & (PH_SLAB_SIZE - 1)) * s->inverse;
    return PH_LIKELY((uint32_t)product < s->inverse) ? (uint32_t)(product >> 32) : UINT32_MAX;
}

static inline void ph_slot_free(void *p)
{
    struct ph_slab *s = ph_slab_of(p);
    uint32_t slot = ph_slot_at(s, p);
    PH_BARRIER();
    if (PH_UNLIKELY(slot == UINT32_MAX) ||
        PH_UNLIKELY(__atomic_load_n(&s->owner, __ATOMIC_RELAXED) != ph_self.number)) {
        ph_heap_free_remote(s, slot, p);
        return;
    }
    uint64_t *word = &s->free[slot / 64], bits = *word;
    if (PH_UNLIKELY(bits >> slot % 64 & 1))
        ph_heap_bad_free(p);
    bits |= UINT64_C(1) << slot % 64;
    __atomic_store_n(word, bits, __ATOMIC_RELAXED);
    struct ph_hint *top = ph_self.top[s->class] + 1;
    if (PH_LIKELY((uintptr_t)top % sizeof(struct ph_hint[PH_HINTS]))) {
        *top = (struct ph_hint){p, ph_hint_bit(s, slot)};
        ph_self.top[s->class] = top;
    }
    if (PH_UNLIKELY(s->stamp != __atomic_load_n(&ph_heap_epoch, __ATOMIC_RELAXED)))
        ph_local_freed(s);
    else if (PH_UNLIKELY(!~bits))
        ph_local_freed_word(s);
}

/** As ph_heap_malloc. */
static inline void *ph_fast_malloc(size_t size)
{
    if (PH_LIKELY(size <= PH_STEP_MAX))
        return ph_slot_alloc(ph_class_of(size));
    return ph_heap_malloc(size);
}

#endif
