/* SPDX-License-Identifier: MIT */
/*
 * pool_shrink.c - blocks that the home image has no need of any more
 *
 * A page that the program has given up leaves its block at home. If it comes again it is
 * written there again, and a block is worth more than a hole; but a heap that has shrunk for
 * good is not to take the disk that it took at its largest. So homes that have lost pages are
 * looked at when a migration has ended, and what was absent at the look before as well becomes
 * holes, if it is much of the stretch.
 *
 *   present --lost--> absent --a look--> NOTED --the next look--> a hole
 *      ^                |                  |                        |
 *      +----------------+--- written again +------------------------+
 *
 * A place at home whose table entry is zero is read by nobody (P6): the entry is durable, H has
 * risen since in both root records, and no migration, which alone writes there, is under way.
 */
#include "allocator/pool_internal.h"

#include <stdlib.h>
#include <string.h>

/* Of a stretch: the shortest run of pages that becomes a hole, and how much is much. */
#define RUN_PART  256
#define MUCH_PART 8

enum { NOTED = 1, HOLE = 2 };

/* Of the stretch at home in a slot, a byte for each page that is absent: NOTED, then HOLE. */
struct ph_absent {
    uint64_t stretch;
    unsigned char page[];
};

/* What is known of the stretch in @p slot; NULL: no memory, then it stays as it is. */
static struct ph_absent *absent_of(struct ph_pool *p, uint32_t slot)
{
    const size_t size = sizeof(struct ph_absent) + p->super.stretch_pages;

    if (!p->absent)
        p->absent = calloc(p->super.slot_count, sizeof(struct ph_absent *));
    if (!p->absent)
        return NULL;
    struct ph_absent *a = p->absent[slot];
    if (a && a->stretch == p->extent[slot].stretch)
        return a;
    free(a);
    a = p->absent[slot] = calloc(1, size);
    if (a)
        a->stretch = p->extent[slot].stretch;
    return a;
}

/* The next run of NOTED pages from @p *page on, long enough. @return its end, *page if none. */
static uint32_t next_run(const struct ph_pool *p, const struct ph_absent *a, uint32_t *page)
{
    const uint32_t n = p->super.stretch_pages, least = n / RUN_PART ? n / RUN_PART : 1;

    for (uint32_t end = *page; end < n;) {
        for (*page = end; *page < n && a->page[*page] != NOTED; ++*page)
            ;
        for (end = *page; end < n && a->page[end] == NOTED; end++)
            ;
        if (end - *page >= least)
            return end;
    }
    return *page = n;
}

static void make_holes(struct ph_pool *p, uint32_t slot, struct ph_absent *a)
{
    uint32_t noted = 0;

    for (uint32_t page = 0, end; (end = next_run(p, a, &page)) > page; page = end)
        noted += end - page;
    if (noted < p->super.stretch_pages / MUCH_PART)
        return;
    for (uint32_t page = 0, end; !p->stop && (end = next_run(p, a, &page)) > page; page = end) {
        ph_io_discard(&p->io, ph_home_place(p, slot, a->stretch + page * PH_PAGE),
                      (end - page) * PH_PAGE);
        memset(a->page + page, HOLE, end - page);
    }
}

/* @return whether all is as at the look before. */
static bool note(const struct ph_pool *p, struct ph_absent *a, const struct ph_sum_pm *table)
{
    bool same = true;

    for (uint32_t i = 0; i < p->super.stretch_pages; i++) {
        bool is_absent = ph_sum_is_zero(table[i]);
        same = same && is_absent == (a->page[i] != 0);
        a->page[i] = !is_absent ? 0 : a->page[i] ? a->page[i] : NOTED;
    }
    return same;
}

/* What has come again is NOTED no more, before what still is becomes holes. */
static void come_again(const struct ph_pool *p, struct ph_absent *a,
                       const struct ph_sum_pm *table)
{
    for (uint32_t i = 0; i < p->super.stretch_pages; i++)
        if (!ph_sum_is_zero(table[i]))
            a->page[i] = 0;
}

void ph_home_shrink(struct ph_pool *p)
{
    struct ph_sum_pm *table = malloc(ph_table_pages(&p->super) * PH_PAGE);

    for (uint32_t slot = 0; slot < p->super.slot_count && table && !p->stop; slot++) {
        pthread_mutex_lock(&p->lock);
        bool look = p->extent[slot].role == PH_EXTENT_HOME && p->extent[slot].lost &&
                    !p->broken && !p->views;
        pthread_mutex_unlock(&p->lock);
        struct ph_absent *a = look ? absent_of(p, slot) : NULL;
        if (!a || ph_home_table(p, slot, table))
            continue;
        come_again(p, a, table);
        make_holes(p, slot, a);
        if (note(p, a, table)) {
            pthread_mutex_lock(&p->lock);
            p->extent[slot].lost = false;
            pthread_mutex_unlock(&p->lock);
        }
    }
    free(table);
}

void ph_home_shrink_free(struct ph_pool *p)
{
    for (uint32_t slot = 0; p->absent && slot < p->super.slot_count; slot++)
        free(p->absent[slot]);
    free(p->absent);
    p->absent = NULL;
}
