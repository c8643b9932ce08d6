/* SPDX-License-Identifier: MIT */
/* restorer_memory.c - every mapping of the program at its place, with its content */
#include "allocator/syscall.h"
#include "restorer.h"

#include <fcntl.h>
#include <sys/mman.h>

#define F_SEAL_WRITE_ 0x0008u /* linux/fcntl.h; here fcntl.h hides it */

static const struct ph_plan *plan;
static const struct ph_record_pm *record;

static const char *string(uint32_t reference)
{
    return (const char *)ph_r_table(&record->strings) + reference;
}

static void map_agent(void)
{
    int rw = PROT_READ | PROT_WRITE;
    ph_r_map_at(PH_CONTROL_BASE, PH_CONTROL_SIZE, rw, MAP_SHARED, plan->memfd, 0,
                "control page");
    ph_r_map_at(PH_RING_BASE, plan->ring_pages * PH_PAGE, rw, MAP_SHARED | MAP_NORESERVE,
                plan->memfd, PH_CONTROL_SIZE, "staging ring");
    ph_r_map_at(PH_SCRATCH_BASE, PH_SCRATCH_SIZE, rw,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "scratch");
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

static void map_one(const struct ph_vma_pm *v, int prot)
{
    uint64_t size = v->end - v->start;
    int flags = MAP_NORESERVE;
    long fd = -1;
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
    } else {
        flags |= MAP_ANONYMOUS;
    }
    if (v->flags & PH_VMA_GROWSDOWN)
        flags |= MAP_GROWSDOWN | MAP_STACK;
    ph_r_map_at(v->start, size, prot, flags, (int)fd, v->offset, "mapping");
    if (fd >= 0)
        ph_syscall(SYS_close, fd);
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

void ph_r_memory(const struct ph_plan *the_plan, const struct ph_record_pm *the_record)
{
    plan = the_plan;
    record = the_record;
    map_agent();
    const struct ph_vma_pm *v = ph_r_table(&record->vmas), *end = v + record->vmas.count;
    const struct ph_run *run =
        (const struct ph_run *)((const unsigned char *)plan + plan->runs_offset);
    const struct ph_run *runs_end = run + plan->nruns;
    for (; v < end; v++) {
        while (run < runs_end && run->addr + run->npages * PH_PAGE <= v->start)
            run++;
        bool fill = v->kind != PH_VMA_SHARED_FILE && !(v->flags & PH_VMA_EMBEDDED) &&
                    run < runs_end && run->addr < v->end;
        int prot = (int)v->prot | (fill ? PROT_WRITE : 0);
        map_one(v, prot);
        for (const struct ph_run *r = run; fill && r < runs_end && r->addr < v->end; r++) {
            uint64_t from = r->addr > v->start ? r->addr : v->start;
            uint64_t to = r->addr + r->npages * PH_PAGE;
            if (to > v->end)
                to = v->end;
            read_pool(from, to - from, r->offset + (from - r->addr));
        }
        if (prot != (int)v->prot) {
            long e = ph_syscall(SYS_mprotect, v->start, v->end - v->start, v->prot);
            if (e < 0)
                ph_r_fail(PH_EMAP, "protecting", v->start, e);
        }
        advise(v);
    }
}
