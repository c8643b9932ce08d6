/* SPDX-License-Identifier: MIT */
/*
 * pool_filter.c - volatile table from page to checksum
 *
 * What the keeper knows of each page of the newest committed epoch. A program's pages lie in
 * long runs, so the table's unit is a block of 64 consecutive pages, found by open addressing;
 * within it a checksum is found by its index, and zero says absent. That takes 16.7 bytes for
 * a page of a full block, and with the slack of growth never more than 32 for pages in runs;
 * a page alone in its 256 KiB takes a whole block, 1 KiB.
 *
 * Invariants: a key is in the slots at most once; at most three quarters of the slots are in
 * use; blocks are never removed, only cleared.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_SHIFT 6
#define BLOCK_PAGES (1u << BLOCK_SHIFT)

struct ph_filter_block {
    uint64_t key; /* address >> (PH_PAGE_SHIFT + BLOCK_SHIFT) */
    struct ph_sum_pm sum[BLOCK_PAGES];
};

static uint64_t key_of(uint64_t addr)
{
    return addr >> (PH_PAGE_SHIFT + BLOCK_SHIFT);
}

static unsigned index_of(uint64_t addr)
{
    return (unsigned)(addr >> PH_PAGE_SHIFT) & (BLOCK_PAGES - 1);
}

/* The slot of @p key, or the empty one where it belongs. @pre f->slots > 0 */
static uint32_t probe(const struct ph_filter *f, uint64_t key)
{
    uint32_t at = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (f->slots - 1);

    while (f->slot[at] && f->block[f->slot[at] - 1].key != key)
        at = (at + 1) & (f->slots - 1);
    return at;
}

static struct ph_filter_block *find(const struct ph_filter *f, uint64_t addr)
{
    uint32_t at = f->slots ? f->slot[probe(f, key_of(addr))] : 0;

    return at ? &f->block[at - 1] : NULL;
}

static int grow_slots(struct ph_filter *f)
{
    uint32_t slots = f->slots ? f->slots * 2 : 64;
    uint32_t *old = f->slot, *slot = calloc(slots, sizeof(*slot));

    if (!slot)
        return PH_ENOMEM;
    f->slot = slot;
    f->slots = slots;
    for (uint32_t i = 0; i < f->blocks; i++)
        f->slot[probe(f, f->block[i].key)] = i + 1;
    free(old);
    return 0;
}

static int grow_blocks(struct ph_filter *f)
{
    /* By an eighth: realloc of this size moves pages, not bytes, so growing often is cheap. */
    uint32_t capacity = f->block_capacity + f->block_capacity / 8 + 16;
    struct ph_filter_block *block = realloc(f->block, capacity * sizeof(*block));

    if (!block)
        return PH_ENOMEM;
    f->block = block;
    f->block_capacity = capacity;
    return 0;
}

void ph_filter_free(struct ph_filter *f)
{
    free(f->block);
    free(f->slot);
    *f = (struct ph_filter){0};
}

struct ph_sum_pm ph_filter_get(const struct ph_filter *f, uint64_t addr)
{
    const struct ph_filter_block *b = find(f, addr);

    return b ? b->sum[index_of(addr)] : (struct ph_sum_pm){0, 0};
}

int ph_filter_reserve(struct ph_filter *f, uint64_t addr)
{
    struct ph_filter_block *b;

    if (find(f, addr))
        return 0;
    if ((uint64_t)(f->blocks + 1) * 4 > (uint64_t)f->slots * 3 && grow_slots(f))
        return PH_ENOMEM;
    if (f->blocks == f->block_capacity && grow_blocks(f))
        return PH_ENOMEM;
    b = &f->block[f->blocks];
    memset(b, 0, sizeof(*b));
    b->key = key_of(addr);
    f->slot[probe(f, b->key)] = ++f->blocks;
    return 0;
}

void ph_filter_put(struct ph_filter *f, uint64_t addr, struct ph_sum_pm sum)
{
    struct ph_filter_block *b = find(f, addr);

    if (b)
        b->sum[index_of(addr)] = sum;
}

int ph_filter_each(const struct ph_filter *f, int (*fn)(void *arg, uint64_t addr), void *arg)
{
    for (uint32_t i = 0; i < f->blocks; i++) {
        const struct ph_filter_block *b = &f->block[i];
        for (unsigned k = 0; k < BLOCK_PAGES; k++) {
            uint64_t page = (b->key << BLOCK_SHIFT) + k;
            int stop = ph_sum_is_zero(b->sum[k]) ? 0 : fn(arg, page << PH_PAGE_SHIFT);
            if (stop)
                return stop;
        }
    }
    return 0;
}

size_t ph_filter_bytes(const struct ph_filter *f)
{
    return f->block_capacity * sizeof(*f->block) + f->slots * sizeof(*f->slot);
}
