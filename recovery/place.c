/* SPDX-License-Identifier: MIT */
/*
 * place.c - which stretches of the heap are mapped from the pool instead of being read
 *
 * A program with gigabytes is back at once if its heap is mapped. Only the heap is: it never
 * gives memory back to the kernel, so nobody ever finds the pool's content again where zeros
 * are due, as MADV_DONTNEED would show in memory that the program manages itself.
 *
 * Of a stretch at home the newest version of some pages is in the log: these are read, over
 * the mapping. So pieces at the same distance from their place in the file belong together, as
 * long as what lies between them is little.
 */
#include "allocator/mapped.h"
#include "plan.h"
#include "recovery.h"

#include <stdlib.h>
#include <string.h>

#define GAP_MAX 16u  /* pages between two pieces of a mapping that come from elsewhere */
#define MAP_MIN 256u /* pages worth a mapping, at first */

/** A piece of the heap that can be mapped as part of a larger one. */
struct group {
    size_t first, last; /* places; those between with another distance are not its own */
    uint64_t pages;     /* its own */
};

static bool in_heap(const struct ph_place *p)
{
    return p->how == PH_PLACE_READ && p->addr >= PH_HEAP_BASE && ph_place_end(p) <= PH_HEAP_END;
}

static bool together(const struct ph_place *a, const struct ph_place *b)
{
    return b->offset - b->addr == a->offset - a->addr;
}

static struct group group_at(const struct ph_place *place, size_t n, size_t first)
{
    struct group g = {first, first, place[first].npages};
    for (size_t i = first + 1; i < n && in_heap(&place[i]); i++) {
        if (place[i].addr - ph_place_end(&place[g.last]) > GAP_MAX * PH_PAGE)
            break;
        if (together(&place[first], &place[i])) {
            g.last = i;
            g.pages += place[i].npages;
        }
    }
    return g;
}

/** Whether the heap is as we left it: private memory that may be replaced. */
static bool heap_is_plain(const struct ph_record_pm *record)
{
    const struct ph_vma_pm *v = (const void *)((const char *)record + record->vmas.offset);
    for (size_t i = 0; i < record->vmas.count; i++)
        if (v[i].end > PH_HEAP_BASE && v[i].start < PH_HEAP_END &&
            (v[i].kind != PH_VMA_ANON || (v[i].flags & (PH_VMA_LOCKED | PH_VMA_WHOLE))))
            return false;
    return true;
}

/** How many groups of at least @p min pages there are, and their pages together. */
static size_t count(const struct ph_place *place, size_t n, uint64_t min, uint64_t *pages)
{
    size_t groups = 0;
    *pages = 0;
    for (size_t i = 0; i < n; i++) {
        if (!in_heap(&place[i]))
            continue;
        struct group g = group_at(place, n, i);
        if (g.pages < min)
            continue;
        groups++;
        *pages += g.pages;
        i = g.last;
    }
    return groups;
}

/** One group: the mapping, then what lies over it. */
static void emit(const struct ph_place *place, const struct group *g, struct ph_place *out,
                 size_t *nout, struct ph_place *mapped, size_t *nmapped)
{
    const struct ph_place *first = &place[g->first];
    uint64_t at = first->addr;
    out[(*nout)++] = (struct ph_place){at, (ph_place_end(&place[g->last]) - at) / PH_PAGE,
                                       first->offset, 0, PH_PLACE_MAP};
    for (size_t i = g->first; i <= g->last; i++) {
        if (place[i].addr > at)
            out[(*nout)++] =
                (struct ph_place){at, (place[i].addr - at) / PH_PAGE, 0, 0, PH_PLACE_ZERO};
        at = ph_place_end(&place[i]);
        if (together(first, &place[i]))
            mapped[(*nmapped)++] = place[i];
        else
            out[(*nout)++] = place[i];
    }
}

uint64_t ph_recovery_map(const struct ph_record_pm *record, struct ph_place **place, size_t *n,
                         struct ph_place **mapped, size_t *nmapped, uint64_t least)
{
    uint64_t min = MAP_MIN, pages;
    size_t nout = 0;
    *mapped = NULL;
    *nmapped = 0;
    if (!heap_is_plain(record))
        return 0;
    while (count(*place, *n, min, &pages) > PH_MAPPED_MAX / 2)
        min *= 2;
    if (!pages || pages < least)
        return 0;
    struct ph_place *out = malloc((2 * *n + PH_MAPPED_MAX) * sizeof *out);
    struct ph_place *taken = malloc(*n * sizeof *taken);
    if (!out || !taken) {
        free(out);
        free(taken);
        return 0;
    }
    for (size_t i = 0; i < *n; i++) {
        struct group g = {i, i, 0};
        if (in_heap(&(*place)[i]))
            g = group_at(*place, *n, i);
        if (g.pages >= min && g.pages) {
            emit(*place, &g, out, &nout, taken, nmapped);
            i = g.last;
        } else {
            out[nout++] = (*place)[i];
        }
    }
    free(*place);
    *place = out;
    *n = nout;
    *mapped = taken;
    return pages;
}
