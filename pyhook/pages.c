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
 *      and is reported as changed.
 *  M4  What a scan has protected is staged in the same epoch; what has been staged without
 *      being protected is reported again by the next.
 */
#include "pages.h"

#include "allocator/syscall.h"

#include <emmintrin.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- staging pages --------------------------------------------------------------------- */

static struct {
    uint64_t epoch;
    struct ph_batch *batch; /* being filled; NULL: none */
    int mem;                /* /proc/self/mem, for pages without PROT_READ; -1: not open */
    const struct ph_vma_pm *vma, *vmas_end; /* cursor: the mapping of the last page */
    const struct ph_vma_pm *ahead;          /* the same for page_ahead */
    bool heap_anonymous;                    /* no part of the heap is a file's */
} staging;

static bool close_batch(void)
{
    struct ph_batch *b = staging.batch;
    staging.batch = NULL;
    if (!b)
        return true;
    _mm_sfence(); /* copy_pages: all is written before the keeper is shown it */
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

#define RECENT 512 /* pages, what a processor's own cache holds about */
#define MANY   64

/**
 * Copy @p n pages, past the cache where the ring's lines are in that of the processor on which
 * the keeper has read them: there they would first be fetched from (*measured*, 115 pages, the
 * reader on another processor: 206 us by memcpy, 17 us past the cache). After many pages they
 * are not, and only long runs gain by it: then the source is fetched ahead.
 */
static void copy_pages(void *to, const void *from, uint64_t n)
{
    if (n < MANY && ph_agent.status.pages_staged >= RECENT) {
        memcpy(to, from, n * PH_PAGE);
        return;
    }
    enum { LINE = 64, WORDS = 2 * LINE / sizeof(__m128i), AHEAD = 32 * LINE };
    const char *source = from;
    __m128i *target = to, word[WORDS];
    for (const char *end = source + n * PH_PAGE; source < end; source += 2 * LINE) {
        if (end - source > AHEAD) {
            _mm_prefetch(source + AHEAD, _MM_HINT_NTA);
            _mm_prefetch(source + AHEAD + LINE, _MM_HINT_NTA);
        }
        for (unsigned i = 0; i < WORDS; i++)
            word[i] = _mm_load_si128((const __m128i *)source + i);
        for (unsigned i = 0; i < WORDS; i++)
            _mm_stream_si128(target++, word[i]);
    }
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
        const void *copy = to;
        uint64_t n = 1;
        if (direct && readable(addr)) {
            uint64_t limit = staging.vma->end < *end ? staging.vma->end : *end;
            n = (limit - addr) / PH_PAGE;
            if (n > PH_BATCH_MAX - b->count)
                n = PH_BATCH_MAX - b->count;
            copy = (const void *)addr; /* the same, and at hand */
            copy_pages(to, copy, n);
        } else if (!read_unreadable(to, addr)) {
            if (!direct) {
                *end = addr;
                return 0;
            }
            ph_agent_detail("reading /proc/self/mem", NULL, errno);
            return PH_EKERNEL;
        }
        ph_hot_staged(addr, n, copy);
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

int ph_pages_stage(uint64_t start, uint64_t end)
{
    return stage_span(start, &end, true);
}

#define REGIONS_FEW ((size_t)1 << 20) /* bytes, where all memory is charged */

struct ph_track_region *ph_memory_regions(bool inner, size_t *max)
{
    static struct ph_track_region least[2][64];
    struct ph_area *a = &ph_agent.areas.regions;
    size_t size = PH_SCRATCH->whole ? a->size : REGIONS_FEW;
    if (!ph_area_reach(a, size)) {
        *max = sizeof least[0] / sizeof least[0][0];
        return least[inner];
    }
    *max = size / sizeof(struct ph_track_region) / 2;
    return (struct ph_track_region *)ph_agent.areas.regions.base + (inner ? *max : 0);
}

void ph_pages_note_present(uint64_t start, uint64_t end)
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

int ph_pages_stage_both(uint64_t start, uint64_t end, struct ph_pages_cursor *changed)
{
    int rc = 0;
    while (changed->at < changed->end && changed->at->end <= start)
        changed->at++;
    for (const struct ph_track_region *c = changed->at;
         rc == 0 && c < changed->end && c->start < end; c++) {
        rc = ph_pages_stage(c->start > start ? c->start : start, c->end < end ? c->end : end);
    }
    return rc;
}

int ph_pages_take_present(uint64_t start, uint64_t end, bool anonymous,
                          struct ph_pages_cursor *changed)
{
    enum ph_track_what what = anonymous ? PH_TRACK_ANONYMOUS : PH_TRACK_PRESENT;
    size_t max;
    struct ph_track_region *r = ph_memory_regions(true, &max);
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        long n = ph_track_scan(&ph_agent.track, what, &at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n && rc == 0; i++) {
            if (!in_heap(r[i].start))
                ph_pages_note_present(r[i].start, r[i].end);
            rc = changed ? ph_pages_stage_both(r[i].start, r[i].end, changed)
                         : stage_region(r[i].start, r[i].end);
        }
    }
    return rc;
}

/*
 * Some pages change in most epochs: the interpreter's variables, the stack. To protect one
 * costs a flush of the other processors' TLBs, and the fault that comes soon costs another:
 * ten times as much as copying it. So as long as few pages are found to have changed they stay
 * as they are, and are found again. Their number grows with every epoch, since a page that has
 * changed once counts as one that does. When copying those has cost about what protecting all
 * costs, which is a fault for each that does change, all are protected, and the next epoch
 * shows how many change at once. *Measured*, Python with NumPy that does nothing but epochs:
 * 119 pages, and one or two more in every epoch.
 */
#define FEW       256u
#define FEW_PAUSE 8  /* epochs, after it was more than a few at once */
#define FAULT     4u /* costs as much as copying so many pages */

static struct {
    uint64_t most;  /* pages that this epoch may leave unprotected; 0: none */
    uint64_t found; /* pages in this epoch */
    uint64_t least; /* in the first one after all had been protected */
    uint64_t extra; /* more than that, in all epochs since */
    bool first;     /* all were protected in the epoch before */
    unsigned pause;
} few;

static void begin_few(bool full)
{
    few.first = few.most == 0;
    if (few.pause)
        few.pause--;
    else if (few.first)
        few.most = FEW;
    if (full)
        few.most = 0;
    few.found = 0;
}

static void end_few(void)
{
    if (few.most == 0)
        return;
    if (few.first) {
        few.least = few.found;
        few.extra = 0;
    }
    few.extra += few.found > few.least ? few.found - few.least : 0;
    bool many = few.found > few.most;
    if (many || few.extra > FAULT * few.least + FEW) {
        few.most = 0; /* the next epoch protects all */
        few.pause = many && few.first ? FEW_PAUSE : 1;
    }
}

/*
 * Scans that staging needs if the mappings are those of the epoch before are among the pieces
 * that a parked thread shares. They protect nothing and stop at a few pages. They miss nothing
 * of the program's, which stands still before they begin; what we write later, to our stacks
 * and variables, is reported by the next epoch (M4).
 */
#define EARLY_MOST 256
/* Of the heap: huge pages within it share a lock of the kernel's. *Measured*: two threads that
 * scan 64 huge pages each of the same GiB take 16 us, one by one 4 us each. */
#define EARLY_PART (UINT64_C(1) << 30)

struct early {
    uint64_t start, end, at; /* the part; where the scan has stopped */
    enum ph_track_what what;
    long n; /* what it returned */
    struct ph_track_region found[FEW];
};
static struct {
    struct early *part;
    uint32_t n;
} early;

static bool private(const struct ph_vma_pm *v)
{
    return (v->kind == PH_VMA_ANON || v->kind == PH_VMA_FILE) &&
           !(v->flags & (PH_VMA_WHOLE | PH_VMA_DROPPABLE));
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

/* It must not reach over what cannot be registered. */
const struct ph_vma_pm *ph_pages_stretch(const struct ph_vma_pm *v, const struct ph_vma_pm *end)
{
    const struct ph_vma_pm *from = v;
    while (v < end && private(v) && !in_heap(v->start) &&
           (v == from || !apart(v[-1].end, v->start)))
        v++;
    return v;
}

static void add_early(uint64_t start, uint64_t end, enum ph_track_what what)
{
    if (early.n == EARLY_MOST)
        return;
    struct early *e = &early.part[early.n++];
    e->start = e->at = start;
    e->end = end;
    e->what = what;
}

static void add_early_heap(void)
{
    struct ph_span used[16];
    size_t n = ph_heap_used_spans(used, sizeof used / sizeof used[0]);
    for (size_t i = 0; i < n; i++)
        for (uint64_t at = used[i].start, stop; at < used[i].end; at = stop)
            if (!ph_hot_run(at, used[i].end, &stop)) {
                if (stop > (at | (EARLY_PART - 1)) + 1)
                    stop = (at | (EARLY_PART - 1)) + 1;
                add_early(at, stop, PH_TRACK_WRITTEN);
            }
}

uint32_t ph_pages_early_prepare(bool *every)
{
    const struct ph_area *vmas = &ph_agent.areas.vmas;
    struct ph_area *room = &ph_agent.areas.changed; /* for soft-dirty bits otherwise */
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)vmas->base,
                           *end = v + vmas->used / sizeof *v;
    ph_outside_suppose_same();
    early.n = 0;
    early.part = (struct early *)room->base;
    *every = false;
    if (!ph_track_protects(&ph_agent.track) || (few.most == 0 && few.pause) ||
        !ph_area_reach(room, EARLY_MOST * sizeof(struct early)) || !ph_hot_reach())
        return 0;
    while (v < end) {
        const struct ph_vma_pm *from = v;
        bool scan;
        v = ph_pages_stretch(from, end);
        if (v == from) {
            v++;
            continue;
        }
        add_early(from->start, v[-1].end, PH_TRACK_UNREGISTERED);
        for (const struct ph_vma_pm *stop; from < v; from = stop) {
            stop = ph_outside_part(from, v, &scan);
            if (scan)
                add_early(from->start, stop[-1].end, PH_TRACK_WRITTEN);
        }
    }
    *every = early.n < EARLY_MOST;
    add_early_heap();
    return early.n;
}

bool ph_pages_early_scan(uint32_t number)
{
    struct early *e = &early.part[early.n - 1 - number]; /* the longest, the heap's, first */
    size_t max = e->what == PH_TRACK_UNREGISTERED ? 1 : FEW;
    e->n = ph_track_scan(&ph_agent.track, e->what, &e->at, e->end, e->found, max);
    return e->what == PH_TRACK_UNREGISTERED && e->n != 0;
}

void ph_pages_early_forget(void)
{
    early.n = 0;
}

/** One that begins at @p start and ends within @p end. */
static const struct early *early_of(uint64_t start, uint64_t end, enum ph_track_what what)
{
    for (uint32_t i = 0; i < early.n; i++)
        if (early.part[i].start == start && early.part[i].end <= end &&
            early.part[i].what == what)
            return &early.part[i];
    return NULL;
}

long ph_pages_unregistered(uint64_t start, uint64_t end)
{
    struct ph_track_region some;
    const struct early *e = early_of(start, end, PH_TRACK_UNREGISTERED);
    return e && e->end == end
               ? e->n
               : ph_track_scan(&ph_agent.track, PH_TRACK_UNREGISTERED, &start, end, &some, 1);
}

long ph_pages_changed(uint64_t *at, uint64_t end, struct ph_track_region *r, size_t max)
{
    uint64_t from = *at;
    if (few.found < few.most) {
        size_t some = max < FEW ? max : FEW;
        const struct early *e = some == FEW ? early_of(from, end, PH_TRACK_WRITTEN) : NULL;
        uint64_t stop = e ? e->end : end;
        long n;
        if (e) {
            n = e->n;
            *at = e->at;
            memcpy(r, e->found, n > 0 ? (size_t)n * sizeof *r : 0);
        } else {
            n = ph_track_scan(&ph_agent.track, PH_TRACK_WRITTEN, at, end, r, some);
        }
        long kept = 0; /* without what is nothing but a hole */
        for (long i = 0; i < n; i++) {
            uint64_t pages = (r[i].end - r[i].start) / PH_PAGE;
            if (!in_heap(from))
                pages -= ph_holes_in(r[i].start, r[i].end);
            few.found += pages;
            if (pages)
                r[kept++] = r[i];
        }
        n = n < 0 ? n : kept;
        if (!in_heap(from))
            ph_holes_known(*at);
        if (n < 0 || (*at == stop && few.found <= few.most))
            return n;
    }
    *at = from;
    return in_heap(from) ? ph_track_scan(&ph_agent.track, PH_TRACK_CHANGED, at, end, r, max)
                         : ph_holes_scan(at, end, r, max);
}

#define SOME 4

/** Scan [start, end) of the heap for changes and stage them; what is @p hot stays unprotected.
 */
static int stage_changed(bool hot, uint64_t start, uint64_t end)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        long n = hot ? ph_track_scan(&ph_agent.track, PH_TRACK_WRITTEN, &at, end, r, max)
                     : ph_pages_changed(&at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n && rc == 0; i++) {
            if (!hot)
                ph_hot_changed(r[i].start, r[i].end, false);
            ph_live_changed(r[i].start, r[i].end);
            /* Asking about a few pages costs more than copying them; absent they read as zero.
             */
            if (r[i].end - r[i].start <= SOME * PH_PAGE)
                rc = stage_region(r[i].start, r[i].end);
            else
                rc = ph_pages_take_present(r[i].start, r[i].end, staging.heap_anonymous, NULL);
        }
    }
    return rc;
}

int ph_pages_protect(uint64_t start, uint64_t end)
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

int ph_pages_register(uint64_t start, uint64_t end)
{
    if (ph_track_register(&ph_agent.track, start, end) == 0)
        return 0;
    ph_agent_detail("registering memory with userfaultfd", NULL, errno);
    return PH_EKERNEL;
}

/* ---- the heap and the other mappings --------------------------------------------------- */

/** Changed pages of [start, end) of the heap, or all of them; hot ones stay unprotected. */
static int stage_heap_part(uint64_t start, uint64_t end, bool full)
{
    int rc = 0;
    if (ph_agent.ahead.looked != staging.epoch)
        ph_hot_look(start, end, page_ahead);
    for (uint64_t at = start, stop; at < end && rc == 0; at = stop) {
        bool hot = ph_hot_run(at, end, &stop);
        if (!full)
            rc = stage_changed(hot, at, stop);
        else if (!hot)
            rc = ph_pages_protect(at, stop);
    }
    if (full && rc == 0)
        rc = ph_pages_take_present(start, end, staging.heap_anonymous, NULL);
    ph_hot_settle(start, end);
    return rc;
}

/** The heap's used part: its pages are present when live, without asking the kernel. */
static int stage_heap(bool full)
{
    struct ph_span used[16];
    size_t n = ph_heap_used_spans(used, sizeof used / sizeof used[0]);
    /* All of it at once, so that the heap grows into memory that is registered already; unless
     * it grows by mapping some. */
    if ((full || !ph_heap_is_whole()) && ph_pages_register(PH_HEAP_BASE, PH_HEAP_END) != 0)
        return PH_EKERNEL;
    for (size_t i = 0; i < n; i++) {
        int rc = stage_heap_part(used[i].start, used[i].end, full);
        if (rc)
            return rc;
        ph_live_note(used[i].start, used[i].end);
    }
    return 0;
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
                ph_pages_note_present(v->start, to);
            v++;
        } else {
            const struct ph_vma_pm *from = v;
            v = ph_pages_stretch(from, end);
            rc = ph_outside_stage(from, v, full);
        }
        if (rc)
            return rc;
    }
    return 0;
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
    size_t size = PH_SCRATCH->whole ? room->size : REGIONS_FEW;
    if (!ph_area_reach(room, size))
        return PH_ENOMEM;
    ph_track_note_begin(t, (struct ph_track_region *)room->base,
                        size / sizeof(struct ph_track_region));
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

int ph_memory_stage(uint64_t epoch, bool full)
{
    const struct ph_area *vmas = &ph_agent.areas.vmas;
    staging.epoch = epoch;
    staging.batch = NULL;
    staging.mem = -1;
    ph_outside_begin();
    ph_holes_begin(full);
    ph_live_begin(epoch, full);
    begin_few(full);
    ph_track_begin(&ph_agent.track);
    staging.vma = staging.ahead = (const struct ph_vma_pm *)vmas->base;
    staging.vmas_end = (const struct ph_vma_pm *)(vmas->base + vmas->used);
    staging.heap_anonymous = true;
    for (const struct ph_vma_pm *v = staging.vma; v < staging.vmas_end; v++)
        staging.heap_anonymous &= !in_heap(v->start) || v->kind == PH_VMA_ANON;
    int rc = ph_hot_reach() ? 0 : PH_ENOMEM;
    if (rc == 0 && ph_agent.track.soft_dirty)
        rc = note_soft_dirty();
    if (rc == 0)
        rc = stage_mappings(full);
    end_few();
    close_batch();
    if (staging.mem >= 0)
        close(staging.mem);
    return rc;
}
