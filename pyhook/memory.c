/* SPDX-License-Identifier: MIT */
/*
 * memory.c - the program's mappings, and which of their pages go into an epoch
 *
 * Read from /proc/self/maps (proc(5)). Everything private is captured, whatever its
 * protection: read-only pages may have been written before (relocations), and unreadable ones
 * may become readable again. Of the heap only pages with live blocks count.
 *
 * Invariants
 *  M1  After ph_memory_stage every private page has been staged in this epoch, or in an
 *      earlier one and has not changed since, or is zero, or is the file's (track.h, T1, T2).
 *  M2  areas.present covers exactly the pages that have content of their own. A page outside
 *      is zero or the file's, whatever the pool still knows of it.
 */
#include "agent_internal.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* ---- /proc/self/maps ----------------------------------------------------------------- */

static uint64_t hex(const char **p)
{
    uint64_t v = 0;
    for (;; (*p)++) {
        unsigned c = (unsigned char)**p;
        if (c >= '0' && c <= '9')
            v = v * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v * 16 + (c - 'a' + 10);
        else
            return v;
    }
}

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/** Whether [start, end) is ours or the kernel's, and so not to be captured. */
static bool foreign(uint64_t start, uint64_t end, const char *name)
{
    if (start >= PH_RESTORER_BASE && end <= PH_VDSO_END)
        return true;
    if (start >= PH_AGENT_BASE && end <= PH_AGENT_END)
        return true;
    /* In a recovered program jumps to this kernel's vdso may lie where the first one's was. */
    if (start < ph_agent.vdso_end && end > ph_agent.vdso_start)
        return true;
    return starts_with(name, "[vvar") || starts_with(name, "[vdso]") ||
           starts_with(name, "[vsyscall]");
}

static void classify_file(struct ph_vma_pm *v, bool shared, const char *path, size_t length)
{
    /* The mappings of one library follow each other: ask once. */
    const struct ph_vma_pm *last = v - 1;
    if ((unsigned char *)v > ph_agent.areas.vmas.base && last->ino == v->ino &&
        last->dev == v->dev && last->kind == PH_VMA_FILE && !shared) {
        v->kind = last->kind;
        v->size = last->size;
        v->mtime_ns = last->mtime_ns;
        v->path = last->path;
        return;
    }
    struct stat st;
    char name[4096];
    bool named = false;
    if (length < sizeof name) {
        memcpy(name, path, length);
        name[length] = 0;
        named = stat(name, &st) == 0 && st.st_ino == v->ino && st.st_dev == v->dev;
    }
    if (named && S_ISREG(st.st_mode) && !(shared && ph_segments_made(name))) {
        v->kind = shared ? PH_VMA_SHARED_FILE : PH_VMA_FILE;
        v->size = (uint64_t)st.st_size;
        v->mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    } else {
        /* Deleted, or replaced by an upgrade: nobody but us has its pages any more. Or they
         * are gone when we are (segments.c). */
        v->kind = shared ? PH_VMA_SHARED_ANON : PH_VMA_ANON;
        v->flags |= PH_VMA_WHOLE;
    }
    v->path = ph_record_string(path, length);
}

static int read_mappings(void)
{
    struct ph_areas *a = &ph_agent.areas;
    a->text.used = 0;
    if (ph_read_file("/proc/self/maps", &a->text) < 0) {
        ph_agent_detail("/proc/self/maps", NULL, errno);
        return PH_EKERNEL;
    }
    for (const char *p = (const char *)a->text.base; *p;) {
        uint64_t start = hex(&p), end = (p++, hex(&p));
        const char *mode = ++p;
        p += 5;
        uint64_t offset = hex(&p), major_ = (p++, hex(&p)), minor_ = (p++, hex(&p));
        char *rest;
        uint64_t ino = strtoul(p, &rest, 10);
        const char *name = rest + strspn(rest, " ");
        size_t length = strcspn(name, "\n");
        p = name + length + (name[length] == '\n');
        if (foreign(start, end, name))
            continue;
        struct ph_vma_pm *v = ph_area_push(&a->vmas, sizeof *v);
        v->start = start;
        v->end = end;
        v->offset = offset;
        v->dev = makedev((unsigned)major_, (unsigned)minor_);
        v->ino = ino;
        v->prot = (mode[0] == 'r' ? PROT_READ : 0u) | (mode[1] == 'w' ? PROT_WRITE : 0u) |
                  (mode[2] == 'x' ? PROT_EXEC : 0u);
        if (ino) {
            classify_file(v, mode[3] == 's', name, length);
        } else {
            v->kind = mode[3] == 's' ? PH_VMA_SHARED_ANON : PH_VMA_ANON;
            if (starts_with(name, "[stack]"))
                v->flags |= PH_VMA_GROWSDOWN;
            if (start >= PH_HEAP_EXTENTS && end <= PH_HEAP_END)
                v->flags |= PH_VMA_HUGEPAGE;
        }
    }
    return 0;
}

/** Field numbers as in proc_pid_stat(5), counted from 1. */
static int read_mm(struct ph_mm_pm *mm)
{
    struct ph_area *text = &ph_agent.areas.text;
    text->used = 0;
    if (ph_read_file("/proc/self/stat", text) < 0)
        return PH_EKERNEL;
    const char *p = strrchr((const char *)text->base, ')');
    uint64_t field[64] = {0};
    if (!p)
        return PH_EKERNEL;
    p += 4; /* ") S": fields 2 and 3 */
    for (int i = 4; i < 64 && *p; i++) {
        char *end;
        field[i] = strtoull(p, &end, 10);
        p = end;
    }
    *mm = (struct ph_mm_pm){.start_code = field[26],
                            .end_code = field[27],
                            .start_stack = field[28],
                            .start_data = field[45],
                            .end_data = field[46],
                            .start_brk = field[47],
                            .arg_start = field[48],
                            .arg_end = field[49],
                            .env_start = field[50],
                            .env_end = field[51],
                            .brk = (uint64_t)(uintptr_t)sbrk(0)};
    return 0;
}

int ph_memory_map(struct ph_record_pm *record)
{
    int rc = read_mappings();
    if (rc == 0)
        ph_memory_flags(ph_capture.full);
    return rc ? rc : read_mm(&record->mm);
}

/* ---- staging pages --------------------------------------------------------------------- */

static struct {
    uint64_t epoch;
    struct ph_batch *batch; /* being filled; NULL: none */
    int mem;                /* /proc/self/mem, for pages without PROT_READ; -1: not open */
    const struct ph_vma_pm *vma, *vmas_end; /* cursor: the mapping of the last page */
    const struct ph_vma_pm *ahead;          /* the same for page_ahead */
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

/** Stage what is present in [start, end). */
static int stage_present(uint64_t start, uint64_t end)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(true, &max);
    int rc = 0;
    for (uint64_t at = start; at < end && rc == 0;) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_PRESENT, &at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n && rc == 0; i++)
            rc = stage_region(r[i].start, r[i].end);
    }
    return rc;
}

/** Scan [start, end) for changes, @p what: CHANGED or WRITTEN, and stage them. */
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
            if (in_heap(r[i].start) && r[i].end - r[i].start == PH_PAGE)
                rc = stage_region(r[i].start, r[i].end);
            else
                rc = stage_present(r[i].start, r[i].end);
        }
    }
    return rc;
}

/** Protect what is present in [start, end) again, without staging it. */
static int protect(uint64_t start, uint64_t end)
{
    if (!ph_track_tells_changes(&ph_agent.track))
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

/**
 * Stage the new mappings of a stretch. Protect first, copy afterwards: our own stack and
 * variables change meanwhile, and must count as changed again.
 */
static int stage_unregistered(uint64_t start, uint64_t end)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    uint64_t at = start;
    long n = ph_track_scan(&ph_agent.track, PH_TRACK_UNREGISTERED, &at, end, r, max);
    if (n <= 0)
        return n < 0 ? PH_EKERNEL : 0;
    int rc = register_stretch(start, end);
    for (long i = 0; i < n && rc == 0; i++) {
        struct ph_track_region one; /* r[i] again: nothing has been written since */
        for (uint64_t a = r[i].start; a < r[i].end && rc == 0;)
            if (ph_track_scan(&ph_agent.track, PH_TRACK_PROTECT, &a, r[i].end, &one, 1) < 0)
                rc = PH_EKERNEL;
        if (rc == 0)
            rc = stage_region(r[i].start, r[i].end);
    }
    /* More regions than fit: being registered now, the rest counts as changed. */
    return rc || at == end ? rc : stage_changed(PH_TRACK_CHANGED, at, end);
}

/** One stretch of mappings that can be registered together. */
static int stage_stretch(uint64_t start, uint64_t end, bool full)
{
    if (full) {
        int rc = register_stretch(start, end);
        if (rc == 0)
            rc = protect(start, end);
        return rc ? rc : stage_present(start, end);
    }
    int rc = stage_changed(PH_TRACK_CHANGED, start, end);
    return rc ? rc : stage_unregistered(start, end);
}

static int note_present(uint64_t start, uint64_t end)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    for (uint64_t at = start; at < end;) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_PRESENT, &at, end, r, max);
        if (n < 0)
            return PH_EKERNEL;
        for (long i = 0; i < n; i++)
            add_present(r[i].start, r[i].end);
    }
    return 0;
}

static bool private(const struct ph_vma_pm *v)
{
    return (v->kind == PH_VMA_ANON || v->kind == PH_VMA_FILE) && !(v->flags & PH_VMA_WHOLE);
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
        rc = stage_present(start, end);
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
        } else if (v->kind == PH_VMA_SHARED_FILE) {
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
            if (rc == 0)
                rc = note_present(from, to);
        }
        if (rc)
            return rc;
    }
    return 0;
}

int ph_memory_stage(uint64_t epoch, bool full)
{
    const struct ph_area *vmas = &ph_agent.areas.vmas;
    staging.epoch = epoch;
    staging.batch = NULL;
    staging.mem = -1;
    ph_track_begin(&ph_agent.track);
    staging.vma = staging.ahead = (const struct ph_vma_pm *)vmas->base;
    staging.vmas_end = (const struct ph_vma_pm *)(vmas->base + vmas->used);
    int rc = stage_mappings(full);
    close_batch();
    if (staging.mem >= 0)
        close(staging.mem);
    return rc;
}
