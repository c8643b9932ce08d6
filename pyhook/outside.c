/* SPDX-License-Identifier: MIT */
/*
 * outside.c - pages of private mappings outside of the heap
 *
 * Which of them have content of their own (M2) is asked of the kernel only where it may have
 * changed (M3): asking about all pages of the libraries took most of a short epoch.
 *
 *   O1  In a mapping of a file a page that had content of its own still has it, unless madvise
 *       was called (moved.c), or the mapping is a new one, which shows by not being registered.
 *       So nobody is asked about those.
 *   O2  A file's mapping that may not be written to has not changed: it was the same at the
 *       epoch before, by its bounds, protection and registration, and mprotect has not let
 *       anybody write to it in between (moved.c). Through /proc/self/mem a debugger can, whose
 *       breakpoints are not the program's.
 *   O3  In other mappings libc discards pages by itself, of the stacks of threads that have
 *       ended: the kernel is asked about all that was present.
 */
#include "pages.h"

#include <errno.h>
#include <sys/mman.h>

#define NEAR (64 * PH_PAGE)  /* looking at as many pages in vain costs about a system call */
#define GAP  (256 * PH_PAGE) /* the same of a scan for changes */

static struct {
    const struct ph_span *at, *end; /* cursor: what was present the last time */
    bool kept;                      /* O1 holds: nothing was advised */
    bool writable;                  /* O2 does not: something was made writable */
    bool still;                     /* O2 is to be used */
} before;

void ph_outside_suppose_same(void)
{
    before.writable = ph_memory_made_writable();
    before.still = !before.writable;
}

void ph_outside_begin(void)
{
    struct ph_areas *a = &ph_agent.areas;
    struct ph_area was = a->present;
    a->present = a->before;
    a->before = was;
    a->present.used = 0;
    before.at = (const struct ph_span *)was.base;
    before.end = (const struct ph_span *)(was.base + was.used);
    before.kept = !ph_memory_advised() && ph_track_protects(&ph_agent.track);
    before.still = before.kept && !before.writable && ph_agent.same_mappings;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/** Pass over what was present below @p at. @return where it goes on, at most @p end. */
static uint64_t next_before(uint64_t at, uint64_t end)
{
    while (before.at < before.end && before.at->end <= at)
        before.at++;
    return before.at < before.end ? least(most(before.at->start, at), end) : end;
}

static uint64_t next_changed(struct ph_pages_cursor *changed, uint64_t at, uint64_t end)
{
    while (changed->at < changed->end && changed->at->end <= at)
        changed->at++;
    return changed->at < changed->end ? least(most(changed->at->start, at), end) : end;
}

uint64_t ph_outside_was_present(uint64_t at, uint64_t end, uint64_t *until)
{
    uint64_t from = next_before(at, end);
    *until = from < end ? least(before.at->end, end) : end;
    return from;
}

/** In [start, end) of a file's mapping: stage what has changed, note what is present (O1). */
static int take_kept(uint64_t start, uint64_t end, struct ph_pages_cursor *changed)
{
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        uint64_t old = next_before(at, end);
        /* What has changed without having been present: perhaps it is the file's after all. */
        for (uint64_t c; rc == 0 && (c = next_changed(changed, at, old)) < old;) {
            at = least(changed->at->end, old);
            rc = ph_pages_take_present(c, at, false, changed);
        }
        if (old == end || rc)
            break;
        at = least(before.at->end, end);
        ph_pages_note_present(old, at);
        rc = ph_pages_stage_both(old, at, changed);
    }
    return rc;
}

/** The same for any mapping, by asking about what was present and what has changed (O2). */
static int take_asked(uint64_t start, uint64_t end, bool anonymous,
                      struct ph_pages_cursor *changed)
{
    struct ph_pages_cursor ahead = *changed;
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        uint64_t from = least(next_before(at, end), next_changed(&ahead, at, end)), to = from;
        for (uint64_t near = from; near < end && near <= to + NEAR;
             near = least(next_before(to, end), next_changed(&ahead, to, end))) {
            if (next_before(near, end) == near)
                to = most(to, least(before.at->end, end));
            if (next_changed(&ahead, near, end) == near)
                to = most(to, least(ahead.at->end, end));
        }
        if (from < to)
            rc = ph_pages_take_present(from, to, anonymous, changed);
        at = most(to, from);
        if (from == to)
            break;
    }
    return rc;
}

/** Of the mappings [v, end) what lies in [from, to), which the scan has reported on. */
static int take(const struct ph_vma_pm *v, const struct ph_vma_pm *end, uint64_t from,
                uint64_t to, bool kept, struct ph_pages_cursor changed)
{
    int rc = 0;
    while (v < end && v->end <= from)
        v++;
    while (v < end && v->start < to && rc == 0) {
        uint64_t start = most(v->start, from), stop = least(v->end, to);
        bool file = v->kind == PH_VMA_FILE;
        v++;
        if (file && kept) {
            rc = take_kept(start, stop, &changed);
            continue;
        }
        /* Those that follow are asked about together. */
        for (; v < end && v->start < to && (v->kind == PH_VMA_FILE ? !kept : true); v++) {
            if (v->kind == PH_VMA_FILE)
                file = true;
            stop = least(v->end, to);
        }
        rc = take_asked(start, stop, !file, &changed);
    }
    return rc;
}

static bool still(const struct ph_vma_pm *v)
{
    return before.still && v->kind == PH_VMA_FILE && !(v->prot & PROT_WRITE);
}

const struct ph_vma_pm *ph_outside_part(const struct ph_vma_pm *v, const struct ph_vma_pm *end,
                                        bool *scan)
{
    *scan = !still(v);
    for (v++; v < end && (still(v) != *scan || (*scan && v->end - v->start < GAP));)
        v++;
    return v;
}

/** Stage the mappings [first, last), a part. */
static int stage_part(const struct ph_vma_pm *first, const struct ph_vma_pm *last, bool scan,
                      bool kept)
{
    uint64_t start = first->start, end = last[-1].end;
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    int rc = 0;
    if (!scan)
        return take(first, last, start, end, kept, (struct ph_pages_cursor){r, r});
    for (uint64_t at = start; at < end && rc == 0;) {
        uint64_t from = at;
        long n = ph_pages_changed(&at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        rc = take(first, last, from, at, kept, (struct ph_pages_cursor){r, r + n});
    }
    return rc;
}

int ph_outside_stage(const struct ph_vma_pm *first, const struct ph_vma_pm *last, bool full)
{
    uint64_t start = first->start, end = last[-1].end;
    int rc = full ? ph_pages_register(start, end) : 0;
    if (full && rc == 0)
        rc = ph_pages_protect(start, end);
    if (full)
        return rc ? rc : ph_pages_take_present(start, end, false, NULL);

    long n = ph_pages_unregistered(start, end);
    if (n < 0)
        return PH_EKERNEL;
    if (n > 0) {
        rc = ph_pages_register(start, end); /* so that all its new pages count as changed */
        ph_pages_early_forget();
        before.still = false;
    }
    bool kept = before.kept && n == 0, scan;
    for (const struct ph_vma_pm *stop; first < last && rc == 0; first = stop) {
        stop = ph_outside_part(first, last, &scan);
        rc = stage_part(first, stop, scan, kept);
    }
    return rc;
}
