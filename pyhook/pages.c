/* SPDX-License-Identifier: MIT */
/*
 * pages.c - which pages of the program's mappings go into an epoch
 *
 * Everything private is captured, whatever its protection: read-only pages may have been
 * written before (relocations), and unreadable ones may become readable again. Of the heap only
 * pages with live blocks count.
 *
 * Invariants
 *  M1  After ph_memory_stage every private page has been staged in this epoch, or in an
 *      earlier one and has not changed since, or is zero, or is the file's (track.h, T1, T2).
 *  M2  areas.present covers exactly the pages that have content of their own. A page outside
 *      is zero or the file's, whatever the pool still knows of it.
 *  M3  A page that has content of its own had it at the epoch before, or has been written since
 *      and is reported as changed. So only those two are asked about: asking about all pages
 *      of the libraries took most of a short epoch.
 */
#include "agent_internal.h"

#include "allocator/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEAR (32 * PH_PAGE) /* looking at as many pages in vain costs about a system call */

/* ---- staging pages --------------------------------------------------------------------- */

static struct {
    uint64_t epoch;
    struct ph_batch *batch; /* being filled; NULL: none */
    int mem;                /* /proc/self/mem, for pages without PROT_READ; -1: not open */
    const struct ph_vma_pm *vma, *vmas_end;    /* cursor: the mapping of the last page */
    const struct ph_vma_pm *ahead;             /* the same for page_ahead */
    const struct ph_span *before, *before_end; /* cursor: what was present the last time */
} staging;

static bool close_batch(void)
{
    struct ph_batch *b = staging.batch;
    staging.batch = NULL;
    if (!b)
        return true;
    /* Give back the rest of the room that was reserved for a full batch. */
    ph_agent.stage.position -= b->npages - b->count;
    b->npages = b->count;
    ph_stage_publish(&ph_agent.stage);
    return true;
}

/** Move @p cursor to the mapping of @p addr, which is not below that of the last time. */
static bool readable_from(const struct ph_vma_pm **cursor, uint64_t addr)
{
    while (*cursor < staging.vmas_end && (*cursor)->end <= addr)
        (*cursor)++;
    return *cursor < staging.vmas_end && ((*cursor)->prot & PROT_READ);
}

static bool readable(uint64_t addr)
{
    return readable_from(&staging.vma, addr);
}

/** The same for those that are looked at ahead of staging. */
static const void *page_ahead(uint64_t addr)
{
    bool there = readable_from(&staging.ahead, addr) && staging.ahead->start <= addr;
    return there ? (const void *)addr : NULL;
}

/** /proc/self/mem reads whatever the protection is. */
static bool read_unreadable(void *to, uint64_t addr)
{
    if (staging.mem < 0)
        staging.mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    return staging.mem >= 0 && pread(staging.mem, to, PH_PAGE, (off_t)addr) == (ssize_t)PH_PAGE;
}

/** Stage [start, *end). Without @p direct the pages may turn out not to exist: *end says where.
 */
static int stage_span(uint64_t start, uint64_t *end, bool direct)
{
    for (uint64_t addr = start; addr < *end;) {
        struct ph_batch *b = staging.batch;
        if (!b) {
            b = staging.batch = ph_stage_reserve(&ph_agent.stage, PH_BATCH_MAX);
            if (!b)
                return PH_EKEEPER;
            b->kind = PH_BATCH_PAGES;
            b->epoch = staging.epoch;
        }
        unsigned char *to = (unsigned char *)b + (1 + b->count) * PH_PAGE;
        uint64_t n = 1;
        if (direct && readable(addr)) {
            uint64_t limit = staging.vma->end < *end ? staging.vma->end : *end;
            n = (limit - addr) / PH_PAGE;
            if (n > PH_BATCH_MAX - b->count)
                n = PH_BATCH_MAX - b->count;
            memcpy(to, (const void *)addr, n * PH_PAGE);
        } else if (!read_unreadable(to, addr)) {
            if (!direct) {
                *end = addr;
                return 0;
            }
            ph_agent_detail("reading /proc/self/mem", NULL, errno);
            return PH_EKERNEL;
        }
        ph_hot_staged(addr, n, to);
        for (uint64_t i = 0; i < n; i++)
            b->addr[b->count++] = addr + i * PH_PAGE;
        addr += n * PH_PAGE;
        ph_agent.status.pages_staged += n;
        if (b->count == PH_BATCH_MAX)
            close_batch();
    }
    return 0;
}

static bool in_heap(uint64_t addr)
{
    return addr >= PH_HEAP_BASE && addr < PH_HEAP_END;
}

/** Stage [start, end), of the heap only what is live. */
static int stage_region(uint64_t start, uint64_t end)
{
    if (!in_heap(start))
        return stage_span(start, &end, true);
    struct ph_span live;
    int rc = 0;
    while (rc == 0 && start < end && ph_heap_live_run(start, end, &live)) {
        rc = stage_span(live.start, &live.end, true);
        start = live.end;
    }
    return rc;
}

struct ph_track_region *ph_memory_regions(bool inner, size_t *max)
{
    *max = ph_agent.areas.regions.size / sizeof(struct ph_track_region) / 2;
    return (struct ph_track_region *)ph_agent.areas.regions.base + (inner ? *max : 0);
}

static void add_present(uint64_t start, uint64_t end)
{
    struct ph_area *a = &ph_agent.areas.present;
    struct ph_span *last = (struct ph_span *)(a->base + a->used) - 1;
    if (a->used && last->end == start) {
        last->end = end;
        return;
    }
    struct ph_span *s = ph_area_push(a, sizeof *s);
    s->start = start;
    s->end = end;
}

/** A list of spans, ascending, that is gone through once. */
struct cursor {
    const struct ph_track_region *at, *end;
};

/** Stage what of [start, end), which is present, is in @p changed. */
static int stage_both(uint64_t start, uint64_t end, struct cursor *changed)
{
    int rc = 0;
    while (changed->at < changed->end && changed->at->end <= start)
        changed->at++;
    for (const struct ph_track_region *c = changed->at;
         rc == 0 && c < changed->end && c->start < end; c++) {
        uint64_t to = c->end < end ? c->end : end;
        rc = stage_span(c->start > start ? c->start : start, &to, true);
    }
    return rc;
}

/** Stage what is present in [start, end), and is in @p changed; NULL: all. Outside of the heap
 *  also note what is present. */
static int take_present(uint64_t start, uint64_t end, struct cursor *changed)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(true, &max);
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_PRESENT, &at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n && rc == 0; i++) {
            if (!in_heap(r[i].start))
                add_present(r[i].start, r[i].end);
            rc = changed ? stage_both(r[i].start, r[i].end, changed)
                         : stage_region(r[i].start, r[i].end);
        }
    }
    return rc;
}

/** Scan [start, end) of the heap for changes, @p what: CHANGED or WRITTEN, and stage them. */
static int stage_changed(enum ph_track_what what, uint64_t start, uint64_t end)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        long n = ph_track_scan(&ph_agent.track, what, &at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n && rc == 0; i++) {
            if (what == PH_TRACK_CHANGED)
                ph_hot_changed(r[i].start, r[i].end, false);
            /* Asking about a single page costs more than copying it; absent it reads as zero.
             */
            if (r[i].end - r[i].start == PH_PAGE)
                rc = stage_region(r[i].start, r[i].end);
            else
                rc = take_present(r[i].start, r[i].end, NULL);
        }
    }
    return rc;
}

/** Protect what is present in [start, end) again, without staging it. */
static int protect(uint64_t start, uint64_t end)
{
    if (!ph_track_protects(&ph_agent.track))
        return 0;
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    for (uint64_t at = start; at < end;)
        if (ph_track_scan(&ph_agent.track, PH_TRACK_PROTECT, &at, end, r, max) < 0)
            return PH_EKERNEL;
    return 0;
}

static int register_stretch(uint64_t start, uint64_t end)
{
    if (ph_track_register(&ph_agent.track, start, end) == 0)
        return 0;
    ph_agent_detail("registering memory with userfaultfd", NULL, errno);
    return PH_EKERNEL;
}

/* ---- outside of the heap --------------------------------------------------------------- */

/** Have [*start, *end) reach over [from, to), if that begins near it or it is empty. */
static bool join(uint64_t *start, uint64_t *end, uint64_t from, uint64_t to)
{
    if (*start == *end) {
        *start = from;
        *end = to;
    } else if (from > *end + NEAR) {
        return false;
    } else if (to > *end) {
        *end = to;
    }
    return true;
}

/** In [start, end): stage what is in @p changed; note what is present (M3). */
static int take_changed(uint64_t start, uint64_t end, struct cursor changed)
{
    const struct ph_span *old = staging.before;
    const struct ph_track_region *c = changed.at;
    int rc = 0;
    while (rc == 0) {
        uint64_t from = start, to = start;
        for (bool more = true; more && to < end;) {
            while (old < staging.before_end && old->end <= to)
                old++;
            while (c < changed.end && c->end <= to)
                c++;
            uint64_t o = old < staging.before_end && old->start < end ? old->start : end;
            o = o > start ? o : start;
            uint64_t n = c < changed.end ? c->start : end;
            if (o <= n)
                more = o < end && join(&from, &to, o, old->end < end ? old->end : end);
            else
                more = join(&from, &to, n, c->end);
        }
        if (from == to)
            break;
        rc = take_present(from, to, &changed);
        start = to;
    }
    staging.before = old;
    return rc;
}

/** One stretch of mappings that can be registered together. */
static int stage_stretch(uint64_t start, uint64_t end, bool full)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    int rc = full ? register_stretch(start, end) : 0;
    if (full && rc == 0)
        rc = protect(start, end);
    if (full)
        return rc ? rc : take_present(start, end, NULL);

    uint64_t at = start;
    long n = ph_track_scan(&ph_agent.track, PH_TRACK_UNREGISTERED, &at, end, r, 1);
    if (n > 0)
        rc = register_stretch(start, end); /* so that all its new pages count as changed */
    for (at = start; at < end && n >= 0 && rc == 0;) {
        uint64_t from = at;
        n = ph_track_scan(&ph_agent.track, PH_TRACK_CHANGED, &at, end, r, max);
        if (n >= 0)
            rc = take_changed(from, at, (struct cursor){r, r + n});
    }
    return n < 0 ? PH_EKERNEL : rc;
}

static bool private(const struct ph_vma_pm *v)
{
    return (v->kind == PH_VMA_ANON || v->kind == PH_VMA_FILE) &&
           !(v->flags & (PH_VMA_WHOLE | PH_VMA_DROPPABLE));
}

/** Changed pages of [start, end) of the heap, or all of them; hot ones stay unprotected. */
static int stage_heap_part(uint64_t start, uint64_t end, bool full)
{
    int rc = 0;
    if (ph_agent.ahead.looked != staging.epoch)
        ph_hot_look(start, end, page_ahead);
    for (uint64_t at = start, stop; at < end && rc == 0; at = stop) {
        bool hot = ph_hot_run(at, end, &stop);
        if (!full)
            rc = stage_changed(hot ? PH_TRACK_WRITTEN : PH_TRACK_CHANGED, at, stop);
        else if (!hot)
            rc = protect(at, stop);
    }
    if (full && rc == 0)
        rc = take_present(start, end, NULL);
    ph_hot_settle(start, end);
    return rc;
}

/** Note what is live in [start, end) of the heap as present. */
static void note_live(uint64_t start, uint64_t end)
{
    struct ph_span live;
    uint64_t at = start;
    for (; ph_heap_live_run(at, end, &live); at = live.end) {
        ph_hot_dead(at, live.start);
        add_present(live.start, live.end);
    }
    ph_hot_dead(at, end);
}

/** The heap's used part: its pages are present when live, without asking the kernel. */
static int stage_heap(bool full)
{
    struct ph_span used[16];
    size_t n = ph_heap_used_spans(used, sizeof used / sizeof used[0]);
    /* All of it at once, so that the heap grows into memory that is registered already. */
    if (full && register_stretch(PH_HEAP_BASE, PH_HEAP_END) != 0)
        return PH_EKERNEL;
    for (size_t i = 0; i < n; i++) {
        int rc = stage_heap_part(used[i].start, used[i].end, full);
        if (rc)
            return rc;
        note_live(used[i].start, used[i].end);
    }
    return 0;
}

/**
 * Whether a stretch that ends at @p from must not go on with a mapping at @p to: something of
 * ours lies between, or there is a hole and only the scan can skip holes.
 */
static bool apart(uint64_t from, uint64_t to)
{
    const struct ph_span ours[] = {{PH_RESTORER_BASE, PH_VDSO_END},
                                   {PH_AGENT_BASE, PH_AGENT_END},
                                   {ph_agent.vvar_start, ph_agent.vdso_end}};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (from < ours[i].end && to > ours[i].start)
            return true;
    return from != to && !ph_agent.track.scan;
}

static int stage_mappings(bool full)
{
    bool heap_done = false;
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)ph_agent.areas.vmas.base;
    const struct ph_vma_pm *end = v + ph_agent.areas.vmas.used / sizeof *v;
    while (v < end) {
        int rc;
        if (in_heap(v->start)) {
            rc = heap_done ? 0 : stage_heap(full);
            heap_done = true;
            v++;
        } else if (v->kind == PH_VMA_SHARED_FILE || (v->flags & PH_VMA_DROPPABLE)) {
            rc = 0;
            v++;
        } else if (v->kind == PH_VMA_SHARED_ANON || (v->flags & PH_VMA_WHOLE)) {
            /* Other processes may write to it, so no tracking of ours sees all changes; and
             * pages of a nameless file are not our own, but must be saved all the same. */
            uint64_t to = v->end;
            rc = stage_span(v->start, &to, false);
            if (to > v->start)
                add_present(v->start, to);
            v++;
        } else {
            uint64_t from = v->start, to = v->end;
            /* A stretch must not reach over what cannot be registered. */
            for (v++; v < end && private(v) && !in_heap(v->start) && !apart(to, v->start); v++)
                to = v->end;
            rc = stage_stretch(from, to, full);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/**
 * mremap(2) marks what it has moved as changed, but not page tables that it moves whole
 * (move_normal_pmd in the kernel's mm/mremap.c): these keep the bits that we have cleared. The
 * word is set before the call and after it, so that no epoch comes between it and the move.
 */
static _Atomic bool moved;

__attribute__((visibility("default"))) void *mremap(void *old, size_t old_size, size_t size,
                                                    int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
    va_end(rest);
    bool may = flags & MREMAP_MAYMOVE;
    if (may)
        moved = true;
    long at = ph_syscall(SYS_mremap, old, old_size, size, flags, to);
    if (at < 0 && at > -4096) {
        errno = (int)-at;
        return MAP_FAILED;
    }
    if (may)
        moved = true;
    return (void *)at;
}

bool ph_memory_moved(void)
{
    bool was = atomic_exchange(&moved, false);
    return was && ph_agent.track.soft_dirty;
}

/**
 * Where soft-dirty bits tell what has changed: note it, then clear them, before anything is
 * copied: our own stack and variables change meanwhile, and must count as changed again.
 */
static int note_soft_dirty(void)
{
    struct ph_track *t = &ph_agent.track;
    struct ph_area *room = &ph_agent.areas.changed;
    struct ph_span used[16];
    size_t n = ph_heap_used_spans(used, sizeof used / sizeof used[0]);
    bool heap_done = false;
    int rc = 0;
    ph_track_note_begin(t, (struct ph_track_region *)room->base,
                        room->size / sizeof(struct ph_track_region));
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)ph_agent.areas.vmas.base;
    for (; v < staging.vmas_end && rc == 0; v++) {
        if (!in_heap(v->start)) {
            rc = private(v) ? ph_track_note(t, v->start, v->end) : 0;
            continue;
        }
        for (size_t i = 0; i < n && !heap_done && rc == 0; i++)
            rc = ph_track_note(t, used[i].start, used[i].end);
        heap_done = true;
    }
    if (rc == 0)
        rc = ph_track_clear(t);
    if (rc)
        ph_agent_detail("the soft-dirty bits of /proc/self/pagemap", NULL, errno);
    return rc;
}

/** What the epoch before has noted as present is what was. */
static void remember_present(void)
{
    struct ph_areas *a = &ph_agent.areas;
    struct ph_area was = a->present;
    a->present = a->before;
    a->before = was;
    a->present.used = 0;
    staging.before = (const struct ph_span *)was.base;
    staging.before_end = (const struct ph_span *)(was.base + was.used);
}

int ph_memory_stage(uint64_t epoch, bool full)
{
    const struct ph_area *vmas = &ph_agent.areas.vmas;
    staging.epoch = epoch;
    staging.batch = NULL;
    staging.mem = -1;
    remember_present();
    ph_track_begin(&ph_agent.track);
    staging.vma = staging.ahead = (const struct ph_vma_pm *)vmas->base;
    staging.vmas_end = (const struct ph_vma_pm *)(vmas->base + vmas->used);
    int rc = ph_agent.track.soft_dirty ? note_soft_dirty() : 0;
    if (rc == 0)
        rc = stage_mappings(full);
    close_batch();
    if (staging.mem >= 0)
        close(staging.mem);
    return rc;
}
