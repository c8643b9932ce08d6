/* SPDX-License-Identifier: MIT */
/*
 * pool_again.c - pages that are appended more than once in an epoch
 *
 * Where pages are copied before the program is stopped, some have to be copied again: the last
 * version counts. A table from address to entry finds the earlier one, which is then dead: its
 * checksum is zero, it is left out of the index, and its page in the log is waste. Open
 * addressing, at most half full; a slot holds the index of the newest entry of its address,
 * plus one, and the address is read from there, also of a dead entry.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>

int ph_pool_allow_again(struct ph_pool *p)
{
    if (!p->writable || !p->writing.number || p->writing.entries)
        return PH_EUSAGE;
    p->writing.again = true;
    return 0;
}

static uint32_t *probe(const struct ph_writing *w, uint64_t addr)
{
    const struct ph_again *a = &w->again_table;
    uint32_t at = (uint32_t)((addr >> PH_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15) >> 32) &
                  (a->slots - 1);

    while (a->slot[at] && w->entry[a->slot[at] - 1].addr != addr)
        at = (at + 1) & (a->slots - 1);
    return &a->slot[at];
}

static int grow(struct ph_writing *w)
{
    struct ph_again *a = &w->again_table;
    struct ph_again old = *a;

    a->slots = old.slots ? old.slots * 2 : 1024;
    a->slot = calloc(a->slots, sizeof(*a->slot));
    if (!a->slot) {
        *a = old;
        return PH_ENOMEM;
    }
    for (uint32_t i = 0; i < old.slots; i++)
        if (old.slot[i])
            *probe(w, w->entry[old.slot[i] - 1].addr) = old.slot[i];
    free(old.slot);
    return 0;
}

struct ph_entry_pm *ph_again_find(struct ph_writing *w, uint64_t addr)
{
    uint32_t *slot = w->again_table.slots ? probe(w, addr) : NULL;

    return slot && *slot ? &w->entry[*slot - 1] : NULL;
}

int ph_again_note(struct ph_writing *w)
{
    struct ph_again *a = &w->again_table;
    uint32_t *slot;

    if ((a->used + 1) * 2 > a->slots && grow(w))
        return PH_ENOMEM;
    slot = probe(w, w->entry[w->entries - 1].addr);
    a->used += *slot == 0;
    *slot = (uint32_t)w->entries;
    return 0;
}

void ph_again_drop(struct ph_writing *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->entries; i++)
        if (!ph_sum_is_zero(w->entry[i].sum))
            w->entry[n++] = w->entry[i];
    w->entries = n;
    free(w->again_table.slot);
    w->again_table = (struct ph_again){0};
}
