/* SPDX-License-Identifier: MIT */
/*
 * restorer_memory.c - every mapping of the program at its place, with its content
 *
 * What is read is held against its checksum at once, while it is in the cache: so each page is
 * read once, and no program starts on damaged ones. Large stretches of the heap are mapped from
 * the pool instead, if the plan says so; pyheap-recover verifies those meanwhile.
 */
#include "allocator/heap_space.h"
#include "allocator/mapped.h"
#include "allocator/syscall.h"
#include "restorer.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define F_SEAL_WRITE_ 0x0008u /* linux/fcntl.h; here fcntl.h hides it */

#define BLOCK         (UINT64_C(256) << 10) /* read, then verified; fits in the cache */
#define AHEAD         (UINT64_C(8) << 20)   /* what the kernel is told to read meanwhile */

struct stretch {
    uint64_t start, end;
};

static struct ph_plan *plan;
static const struct ph_record_pm *record;

static const char *string(uint32_t reference)
{
    return (const char *)ph_r_table(&record->strings) + reference;
}

/** The agent's scratch; where it cannot be had as a whole, its first page (layout.h). */
static void map_scratch(void)
{
    int rw = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    long r = ph_syscall(SYS_mmap, PH_SCRATCH_BASE, PH_SCRATCH_SIZE, rw,
                        flags | MAP_FIXED_NOREPLACE, -1, 0);
    if (r == (long)PH_SCRATCH_BASE)
        PH_SCRATCH->whole = 1;
    else
        ph_r_map_at(PH_SCRATCH_BASE, PH_PAGE, rw, flags, -1, 0, "scratch");
}

static void map_agent(void)
{
    int rw = PROT_READ | PROT_WRITE;
    ph_r_map_at(PH_CONTROL_BASE, PH_CONTROL_SIZE, rw, MAP_SHARED, plan->memfd, 0,
                "control page");
    ph_r_map_at(PH_RING_BASE, plan->ring_pages * PH_PAGE, rw, MAP_SHARED | MAP_NORESERVE,
                plan->memfd, PH_CONTROL_SIZE, "staging ring");
    map_scratch();
}

/** A file without a name that is mapped and open: it is there again, under its number. */
static const struct ph_file_pm *open_nameless(const struct ph_vma_pm *v)
{
    const struct ph_file_pm *f = ph_r_table(&record->files), *end = f + record->files.count;
    for (; v->kind == PH_VMA_SHARED_ANON && v->ino && f < end; f++)
        if (f->kind == PH_FILE_REGULAR && (f->flags & PH_FILE_DELETED) && f->same_as < 0 &&
            f->ino == v->ino && f->dev == v->dev)
            return f;
    return 0;
}

/** A description of its own, since the program's may be for reading or for writing only. */
static long open_again(const struct ph_file_pm *f)
{
    char path[40] = "/proc/self/fd/", digits[16];
    unsigned n = 0, at = (unsigned)ph_r_length(path);
    for (unsigned v = (unsigned)f->fd; v || !n; v /= 10)
        digits[n++] = (char)('0' + v % 10);
    while (n)
        path[at++] = digits[--n];
    path[at] = 0;
    bool sealed = f->detail & F_SEAL_WRITE_;
    return ph_syscall(SYS_open, path, (sealed ? O_RDONLY : O_RDWR) | O_CLOEXEC, 0);
}

/**
 * Shared memory under a name, of which no descriptor is open. Whoever is to remove it at the
 * end of the program (Python's resource tracker, a child) may be about to, and must not find
 * the new one; but a child of the killed program that uses it may keep it there.
 */
static long open_segment(const struct ph_vma_pm *v)
{
    static unsigned naps = 100;
    const struct ph_vma_pm *first = ph_r_table(&record->vmas);
    const char *path = string(v->path);
    while (first->ino != v->ino || first->dev != v->dev || !(first->flags & PH_VMA_SEGMENT))
        first++;
    if (first != v)
        return ph_syscall(SYS_open, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    for (; naps && ph_syscall(SYS_access, path, 0) == 0; naps--) {
        int64_t nap[2] = {0, 5000000};
        ph_syscall(SYS_nanosleep, nap, 0);
    }
    ph_syscall(SYS_unlink, path);
    long fd = ph_syscall(SYS_open, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        ph_syscall(SYS_ftruncate, fd, v->size);
        ph_syscall(SYS_fchmod, fd, v->mtime_ns);
    }
    return fd;
}

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08 /* linux/mman.h of Linux 6.11 */
#endif

/** What the kernel may empty at any time. @return false: this one knows no such thing. */
static bool map_droppable(const struct ph_vma_pm *v)
{
    long r = ph_syscall(SYS_mmap, v->start, v->end - v->start, v->prot,
                        MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return r == (long)v->start;
}

static void map_one(const struct ph_vma_pm *v, int prot)
{
    uint64_t size = v->end - v->start;
    int flags = MAP_NORESERVE;
    long fd = -1;
    if ((v->flags & PH_VMA_DROPPABLE) && map_droppable(v))
        return;
    bool shared = v->kind == PH_VMA_SHARED_FILE || v->kind == PH_VMA_SHARED_ANON;
    flags |= shared ? MAP_SHARED : MAP_PRIVATE;
    if (v->kind == PH_VMA_FILE || v->kind == PH_VMA_SHARED_FILE) {
        bool write = v->kind == PH_VMA_SHARED_FILE && (v->prot & PROT_WRITE);
        fd = ph_syscall(SYS_open, string(v->path), (write ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
        if (fd < 0) {
            ph_r_say(string(v->path));
            ph_r_say("\n");
            ph_r_fail(PH_EFILES, "cannot open the file mapped", v->start, fd);
        }
    } else if (open_nameless(v)) {
        fd = open_again(open_nameless(v));
        if (fd < 0)
            ph_r_fail(PH_EFILES, "cannot open the nameless file mapped", v->start, fd);
    } else if (v->flags & PH_VMA_SEGMENT) {
        fd = open_segment(v);
        if (fd < 0) {
            ph_r_say(string(v->path));
            ph_r_say("\n");
            ph_r_fail(PH_EFILES, "cannot make the shared memory anew", v->start, fd);
        }
    } else {
        flags |= MAP_ANONYMOUS;
    }
    if (v->flags & PH_VMA_GROWSDOWN)
        flags |= MAP_GROWSDOWN | MAP_STACK;
    ph_r_map_at(v->start, size, prot, flags, (int)fd, v->offset, "mapping");
    if (fd >= 0)
        ph_syscall(SYS_close, fd);
}

void ph_r_report(enum ph_plan_state state)
{
    atomic_store(&plan->state, state);
    ph_syscall(SYS_futex, &plan->state, FUTEX_WAKE, INT32_MAX);
}

static void read_pool(uint64_t to, uint64_t size, uint64_t offset)
{
    while (size) {
        long n = ph_syscall(SYS_pread64, plan->pool_fd, to, size, offset);
        if (n == -4) /* EINTR */
            continue;
        if (n <= 0)
            ph_r_fail(PH_EIO, "reading the pool for the page", to, n);
        to += (uint64_t)n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
}

/** Bytes [skip, skip + size) of @p p to @p to. */
static void read_place(const struct ph_place *p, uint64_t to, uint64_t size, uint64_t skip)
{
    const struct ph_sum_pm *sum =
        (const struct ph_sum_pm *)((const unsigned char *)plan + plan->sums_offset) + p->sum +
        skip / PH_PAGE;
    uint64_t offset = p->offset + skip;
    for (uint64_t at = 0, n; at < size; at += n) {
        n = size - at < BLOCK ? size - at : BLOCK;
        if (at % AHEAD == 0 && size - at > BLOCK)
            ph_syscall(SYS_fadvise64, plan->pool_fd, offset + at,
                       size - at < 2 * AHEAD ? size - at : 2 * AHEAD, POSIX_FADV_WILLNEED);
        read_pool(to + at, n, offset + at);
        for (uint64_t k = 0; p->how == PH_PLACE_READ && k < n; k += PH_PAGE)
            if (!ph_r_page_right((const void *)(to + at + k), sum++)) {
                plan->bad = to + at + k;
                ph_r_report(PH_PLAN_DAMAGED);
                ph_r_leave(PH_ECORRUPT);
            }
        atomic_fetch_add(&plan->done, n / PH_PAGE);
    }
}

static void map_place(const struct ph_vma_pm *v, uint64_t from, uint64_t to, uint64_t offset)
{
    struct ph_mapped *m = PH_MAPPED;
    long r = ph_syscall(SYS_mmap, from, to - from, v->prot | PROT_WRITE,
                        MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, plan->pool_fd, offset);
    if (r != (long)from || m->n == PH_MAPPED_MAX) {
        ph_r_report(PH_PLAN_NO_MAP);
        ph_r_leave(PH_EMAP);
    }
    m->stretch[m->n].start = from;
    m->stretch[m->n++].end = to;
}

/** What @p p has for the mapping @p v. */
static void fill(const struct ph_vma_pm *v, const struct ph_place *p)
{
    uint64_t from = p->addr > v->start ? p->addr : v->start;
    uint64_t to = ph_place_end(p);
    if (to > v->end)
        to = v->end;
    if (from >= to)
        return;
    switch ((enum ph_place_how)p->how) {
    case PH_PLACE_READ:
    case PH_PLACE_COPY:
        read_place(p, from, to - from, from - p->addr);
        break;
    case PH_PLACE_MAP:
        map_place(v, from, to, p->offset + (from - p->addr));
        break;
    case PH_PLACE_ZERO:
        memset((void *)from, 0, to - from);
        break;
    }
}

/**
 * Advice may be refused (a limit, another kernel): the program runs without it as well. After
 * the mapping is filled: filling huge pages was measured to take several times as long
 * where the host has to find the memory, and the kernel collapses small ones by and by.
 */
static void advise(const struct ph_vma_pm *v)
{
    static const struct {
        uint32_t flag;
        int advice;
    } advice[] = {{PH_VMA_HUGEPAGE, MADV_HUGEPAGE},
                  {PH_VMA_NOHUGEPAGE, MADV_NOHUGEPAGE},
                  {PH_VMA_DONTFORK, MADV_DONTFORK},
                  {PH_VMA_WIPEONFORK, MADV_WIPEONFORK},
                  {PH_VMA_DONTDUMP, MADV_DONTDUMP}};
    for (unsigned i = 0; i < sizeof advice / sizeof advice[0]; i++)
        if (v->flags & advice[i].flag)
            ph_syscall(SYS_madvise, v->start, v->end - v->start, advice[i].advice);
    if (v->flags & PH_VMA_LOCKED)
        ph_syscall(SYS_mlock, v->start, v->end - v->start);
}

/* ---- the rest of the heap's range ------------------------------------------------------- */

static bool map_rest(const struct stretch *rest, int prot)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    for (unsigned i = 0; i < PH_PARTS; i++) {
        uint64_t size = rest[i].end - rest[i].start;
        if (!size)
            continue;
        if (ph_syscall(SYS_mmap, rest[i].start, size, prot, flags, -1, 0) !=
            (long)rest[i].start) {
            for (; i-- > 0;)
                if (rest[i].end > rest[i].start)
                    ph_syscall(SYS_munmap, rest[i].start, rest[i].end - rest[i].start);
            return false;
        }
    }
    return true;
}

/**
 * The record has what of the heap's range is in use. The rest becomes as the heap last had it,
 * or what is possible here (allocator/heap_space.h). A heap in pieces stays one: by A3 some
 * thread may be about to map the next.
 */
static void rest_of_heap(void)
{
    const struct ph_vma_pm *v = ph_r_table(&record->vmas), *end = v + record->vmas.count;
    struct stretch rest[PH_PARTS];
    for (unsigned i = 0; i < PH_PARTS; i++)
        rest[i] = (struct stretch){ph_part_start[i], ph_part_start[i + 1]};
    for (; v < end; v++)
        for (unsigned i = 0; i < PH_PARTS; i++)
            if (v->start < ph_part_start[i + 1] && v->end > rest[i].start)
                rest[i].start = v->end < rest[i].end ? v->end : rest[i].end;
    if (rest[0].start == PH_HEAP_BASE)
        return; /* no heap */
    if (ph_space->how == PH_SPACE_WHOLE) {
        if (map_rest(rest, PROT_READ | PROT_WRITE)) {
            ph_syscall(SYS_madvise, rest[PH_PART_EXTENTS].start,
                       rest[PH_PART_EXTENTS].end - rest[PH_PART_EXTENTS].start, MADV_HUGEPAGE);
            return;
        }
        for (unsigned i = 0; i < PH_PARTS; i++)
            ph_space->end[i] = rest[i].start;
        ph_space->how = PH_SPACE_RESERVED;
    }
    if (ph_space->how == PH_SPACE_RESERVED)
        map_rest(rest, PROT_READ); /* what it is without it works as well, and as fast */
}

void ph_r_memory(struct ph_plan *the_plan, const struct ph_record_pm *the_record)
{
    plan = the_plan;
    record = the_record;
    map_agent();
    ph_r_map_at(PH_MAPPED_BASE, sizeof(struct ph_mapped), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "list of what is mapped");
    const struct ph_vma_pm *v = ph_r_table(&record->vmas), *end = v + record->vmas.count;
    const struct ph_place *place =
        (const struct ph_place *)((const unsigned char *)plan + plan->places_offset);
    const struct ph_place *places_end = place + plan->nplaces;
    for (; v < end; v++) {
        while (place < places_end && ph_place_end(place) <= v->start)
            place++;
        bool filled = v->kind != PH_VMA_SHARED_FILE && !(v->flags & PH_VMA_EMBEDDED) &&
                      place < places_end && place->addr < v->end;
        int prot = (int)v->prot | (filled ? PROT_WRITE : 0);
        map_one(v, prot);
        for (const struct ph_place *p = place; filled && p < places_end && p->addr < v->end;
             p++)
            fill(v, p);
        if (prot != (int)v->prot) {
            long e = ph_syscall(SYS_mprotect, v->start, v->end - v->start, v->prot);
            if (e < 0)
                ph_r_fail(PH_EMAP, "protecting", v->start, e);
        }
        advise(v);
    }
    rest_of_heap();
}
