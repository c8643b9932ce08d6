/* SPDX-License-Identifier: MIT */
/*
 * holes.c - memory that nobody has touched is not protected
 *
 * To protect it the kernel makes page tables full of marks, which every later scan goes
 * through: 26 us for the 64 MiB that OpenBLAS asks for and hardly uses. Without page tables it
 * is reported as changed, in one region and in no time, and has no pages to be staged.
 *
 *   H1  A hole is a stretch of whole page tables, of registered mappings outside of the heap,
 *       in which there is nothing at all, not even a page of a file. It is found empty in each
 *       epoch anew before it is left out.
 *   H2  It is not protected. So what is written there later counts as changed (T1).
 */
#include "pages.h"

#define TABLE (UINT64_C(512) * PH_PAGE) /* what a page table spans */
#define MOST  64
#define SCANS 64 /* in one region, of memory in small pieces */

static struct list {
    struct ph_span at[MOST];
    size_t n;
} now, last;
static uint64_t known;           /* up to here the holes of this epoch are in `now` */
static bool noted, last_are_all; /* by this epoch; `last` has all that there may be */

void ph_holes_begin(bool full)
{
    last_are_all = noted && ph_agent.same_mappings;
    noted = !full;
    last = now;
    now.n = 0;
    known = 0;
}

static uint64_t add(uint64_t start, uint64_t end)
{
    start = (start + TABLE - 1) & ~(TABLE - 1);
    end &= ~(TABLE - 1);
    if (start >= end || now.n == MOST)
        return 0;
    now.at[now.n++] = (struct ph_span){start, end};
    return (end - start) / PH_PAGE;
}

uint64_t ph_holes_in(uint64_t start, uint64_t end)
{
    struct ph_track_region r[16];
    uint64_t pages = 0, from = start;
    /* Otherwise what is populated cannot be told, nothing is protected, and what was written
     * may well be whole page tables: a huge page. */
    if (end - start < TABLE || !ph_track_protects(&ph_agent.track))
        return 0;
    unsigned scans = 0;
    for (uint64_t at = start; at < end;) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_POPULATED, &at, end, r, 16);
        if (n < 0 || ++scans > SCANS)
            return pages;
        for (long i = 0; i < n; i++) {
            pages += add(from, r[i].start);
            from = r[i].end;
        }
    }
    return pages + add(from, end);
}

void ph_holes_known(uint64_t to)
{
    known = to;
}

/** Those of the epoch before, if the mappings are the same; otherwise among what is not
 * protected. @return 0, PH_EKERNEL. */
static int find(uint64_t start, uint64_t end, struct ph_track_region *r, size_t max)
{
    for (size_t i = 0; last_are_all && i < last.n; i++)
        if (last.at[i].start >= start && last.at[i].end <= end)
            ph_holes_in(last.at[i].start, last.at[i].end);
    for (uint64_t at = start; !last_are_all && at < end;) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_WRITTEN, &at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n; i++)
            ph_holes_in(r[i].start, r[i].end);
    }
    known = end;
    return 0;
}

long ph_holes_scan(uint64_t *at, uint64_t end, struct ph_track_region *r, size_t max)
{
    if (*at >= known && find(*at, end, r, max) != 0)
        return PH_EKERNEL;
    uint64_t stop = end < known ? end : known;
    size_t i = 0;
    while (i < now.n && now.at[i].end <= *at)
        i++;
    if (i < now.n && now.at[i].start <= *at) {
        *at = now.at[i].end < stop ? now.at[i].end : stop;
        i++;
    }
    if (i < now.n && now.at[i].start < stop)
        stop = now.at[i].start;
    return *at < stop ? ph_track_scan(&ph_agent.track, PH_TRACK_CHANGED, at, stop, r, max) : 0;
}
