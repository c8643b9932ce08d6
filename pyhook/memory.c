/* SPDX-License-Identifier: MIT */
/*
 * memory.c - the program's mappings: /proc/self/maps (proc(5)), classified
 *
 * Reading and classifying takes a third of a short epoch, and they seldom change. So the kernel
 * is asked for the bounds and flags of each (PROCMAP_QUERY, Linux 6.11), and for their files.
 * If all is as the table of the epoch before has it, that table is this epoch's.
 *
 *   A1  Two of three mappings may not be written to, and lie in a stretch whose scan shows that
 *       nothing new is in it (track.h, T1). Such a one can only have ended, or be protected
 *       otherwise now: that is a matter of calls.h (K1, K2). Those are passed over, all others
 *       are asked about in every epoch. What libc does by itself to one that was passed over is
 *       to end it, a locale's; a recovered program then has it once more, and never looks.
 */
#include "agent_internal.h"
#include "calls.h"
#include "files.h"
#include "proc_stat.h"

#include "allocator/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* include/uapi/linux/fs.h; the flags of a mapping are those of PROT_READ to PROT_EXEC. */
struct query {
    uint64_t size, query_flags, query_addr, start, end, flags, page_size, offset, inode;
    uint32_t dev_major, dev_minor, name_size, build_id_size;
    uint64_t name_addr, build_id_addr;
};
#define QUERY                  _IOWR('f', 17, struct query)
#define QUERY_SHARED           UINT64_C(8)
#define QUERY_COVERING_OR_NEXT UINT64_C(16)

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

/** The first three of "rwxp". */
static uint32_t prot_of(const char *mode)
{
    return (mode[0] == 'r' ? PROT_READ : 0u) | (mode[1] == 'w' ? PROT_WRITE : 0u) |
           (mode[2] == 'x' ? PROT_EXEC : 0u);
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
    return ph_starts_with(name, "[vvar") || ph_starts_with(name, "[vdso]") ||
           ph_starts_with(name, "[vsyscall]");
}

/** Whether it is what a Java machine in the program shows to other processes, under the number
 * of this one: any other Java machine removes it as soon as that is gone, and none looks for it
 * under the number that a recovered program has. */
static bool is_javas(const char *path)
{
    return strstr(path, "/hsperfdata_") != NULL;
}

/** Whether the file of @p v, which has its path, still has that name; its size and time. May be
 * called by any thread (pieces.c, W3). */
static void look_at_file(struct ph_vma_pm *v, bool shared)
{
    struct stat st;
    const char *path = (const char *)ph_agent.areas.strings.base + v->path;
    bool named = ph_syscall(SYS_newfstatat, AT_FDCWD, path, &st, 0) == 0 &&
                 st.st_ino == v->ino && st.st_dev == v->dev;
    bool segment = named && shared && ph_segments_made(path);
    if (named && S_ISREG(st.st_mode) && !segment && !(shared && is_javas(path))) {
        v->kind = shared ? PH_VMA_SHARED_FILE : PH_VMA_FILE;
        v->size = (uint64_t)st.st_size;
        v->mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    } else {
        /* Deleted, or replaced by an upgrade: nobody but us has its pages any more. Or they
         * are gone when we are (segments.c, is_javas). */
        v->kind = shared ? PH_VMA_SHARED_ANON : PH_VMA_ANON;
        v->flags |= PH_VMA_WHOLE;
        if (segment) {
            v->flags |= PH_VMA_SEGMENT;
            v->size = (uint64_t)st.st_size;
            v->mtime_ns = st.st_mode & 07777u;
        }
    }
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
    char name[300];
    const char *semaphore = shared ? ph_segments_semaphore(v->start, name, sizeof name) : NULL;
    v->path = semaphore ? ph_record_string(semaphore, strlen(semaphore))
                        : ph_record_string(path, length);
    look_at_file(v, shared);
}

/** What is known of every mapping, ours among them, to see a change. */
struct bounds {
    uint64_t start, end, offset, ino;
    uint32_t major, minor;
    uint64_t prot;
    bool inside; /* of a stretch, neither its first nor its last, and not to be written to */
};

static void note_bounds(uint64_t start, uint64_t end, uint64_t offset, uint64_t major_,
                        uint64_t minor_, uint64_t ino, const char *mode)
{
    if (start > INT64_MAX)
        return; /* [vsyscall], which is no mapping */
    struct bounds *b = ph_area_push(&ph_agent.areas.bounds, sizeof *b);
    *b = (struct bounds){start,
                         end,
                         offset,
                         ino,
                         (uint32_t)major_,
                         (uint32_t)minor_,
                         prot_of(mode) | (mode[3] == 's' ? QUERY_SHARED : 0),
                         false};
}

/** Find those that A1 is about. After ph_memory_flags. */
static void note_inside(void)
{
    struct ph_areas *a = &ph_agent.areas;
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)a->vmas.base,
                           *end = v + a->vmas.used / sizeof *v;
    struct bounds *b = (struct bounds *)a->bounds.base, *last = b + a->bounds.used / sizeof *b;
    for (const struct ph_vma_pm *from; (from = v) < end;) {
        v = ph_pages_stretch(from, end);
        for (; v > from && b < last && b->start < v[-1].end; b++)
            b->inside = b->start > from->start && b->end < v[-1].end && !(b->prot & PROT_WRITE);
        v += v == from;
    }
}

/** What of the heap is to be memory in a recovered program. */
static struct ph_span heap_span[PH_HEAP_PARTS];

/**
 * A mapping of the heap's, without what is only kept free for it (heap_space.h). That cannot be
 * written to; but neither can what the program itself has protected.
 */
static void note_heap(uint64_t start, uint64_t end, uint32_t prot)
{
    for (size_t i = 0; i < PH_HEAP_PARTS; i++) {
        uint64_t from = start > heap_span[i].start ? start : heap_span[i].start;
        uint64_t to = end < heap_span[i].end ? end : heap_span[i].end;
        if (!(prot & PROT_WRITE) && to > ph_heap_memory_end(i))
            to = ph_heap_memory_end(i);
        if (from >= to)
            continue;
        struct ph_vma_pm *v = ph_area_push(&ph_agent.areas.vmas, sizeof *v);
        v->start = from;
        v->end = to;
        v->prot = prot;
        v->kind = PH_VMA_ANON;
        v->flags = from >= PH_HEAP_EXTENTS ? PH_VMA_HUGEPAGE : 0;
    }
}

static int read_mappings(void)
{
    struct ph_areas *a = &ph_agent.areas;
    a->text.used = a->bounds.used = a->vmas.used = a->strings.used = 0;
    ph_heap_memory_spans(heap_span);
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
        note_bounds(start, end, offset, major_, minor_, ino, mode);
        if (foreign(start, end, name))
            continue;
        if (!ino && start >= PH_HEAP_BASE && end <= PH_HEAP_END) {
            note_heap(start, end, prot_of(mode));
            continue;
        }
        struct ph_vma_pm *v = ph_area_push(&a->vmas, sizeof *v);
        v->start = start;
        v->end = end;
        v->offset = offset;
        v->dev = makedev((unsigned)major_, (unsigned)minor_);
        v->ino = ino;
        v->prot = prot_of(mode);
        if (ino) {
            classify_file(v, mode[3] == 's', name, length);
        } else {
            v->kind = mode[3] == 's' ? PH_VMA_SHARED_ANON : PH_VMA_ANON;
            if (ph_starts_with(name, "[stack]"))
                v->flags |= PH_VMA_GROWSDOWN;
        }
    }
    return 0;
}

static int read_mm(struct ph_mm_pm *mm)
{
    struct ph_area *text = &ph_agent.areas.text;
    text->used = 0;
    if (ph_read_file("/proc/self/stat", text) < 0)
        return PH_EKERNEL;
    const char *p = ph_stat_field((const char *)text->base, 4);
    uint64_t field[64] = {0};
    if (!p)
        return PH_EKERNEL;
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

/* ---- as the epoch before found them ------------------------------------------------------ */

static struct {
    bool valid; /* areas.vmas and areas.bounds are those of the last epoch */
    uint64_t generation;
    size_t strings;     /* how much of them the table needs */
    uint32_t exe;       /* of them: the executable, if it is mapped; 0: it is not */
    struct ph_mm_pm mm; /* but brk: what PR_SET_MM alone changes is a matter for ps */
} table;

/* What ph_pieces_do checks the table by. The kernel's answers do not depend on who asks, and
 * all threads stand still, so the pieces together are as good as one look at everything. */
#define PIECE 16 /* mappings */
static struct {
    uint32_t scans;     /* the first pieces: scans for changes (pages.c) */
    uint32_t bounds;    /* so many look at areas.bounds; the others at the files */
    bool held;          /* the keeper looks at the files of libraries */
    bool outside;       /* those inside of stretches are passed over (A1) */
    _Atomic bool other; /* something is not as it was */
} look;

/** Whether mappings @p from to, but not, @p to of areas.bounds are there, as they were, and
 * nothing between them; after the last one there is none. */
static bool bounds_same(size_t from, size_t to)
{
    const struct bounds *b = (const struct bounds *)ph_agent.areas.bounds.base;
    size_t n = ph_agent.areas.bounds.used / sizeof *b;
    for (size_t i = from; i < to && i <= n; i++) {
        bool passed = look.outside && i > 0 && b[i - 1].inside; /* nothing new is behind it */
        if (look.outside && i < n && b[i].inside)
            continue;
        struct query q = {.size = sizeof q,
                          .query_flags = QUERY_COVERING_OR_NEXT,
                          .query_addr = passed ? b[i].start
                                        : i    ? b[i - 1].end
                                               : 0};
        /* ENOTTY on an older kernel */
        long rc = ph_syscall(SYS_ioctl, ph_agent.track.maps, QUERY, &q);
        if (i == n)
            return rc == -ENOENT;
        if (rc != 0 || q.start != b[i].start || q.end != b[i].end || q.offset != b[i].offset ||
            q.inode != b[i].ino || q.dev_major != b[i].major || q.dev_minor != b[i].minor ||
            (q.flags & (PROT_READ | PROT_WRITE | PROT_EXEC | QUERY_SHARED)) != b[i].prot)
            return false;
    }
    return true;
}

/** Whether a mapping of the file of @p v, of those in [all, end), is text: one of its
 * neighbours, or one further away, if what has no file lies between. */
static bool has_text(const struct ph_vma_pm *all, const struct ph_vma_pm *end,
                     const struct ph_vma_pm *v)
{
    const char *strings = (const char *)ph_agent.areas.strings.base;
    const struct ph_vma_pm *o = v;
    while (o > all && o[-1].path == v->path)
        o--;
    for (; o < end && o->path == v->path; o++)
        if (o->prot & PROT_EXEC)
            return true;
    for (o = all; o < end; o++)
        if ((o->prot & PROT_EXEC) && o->kind == PH_VMA_FILE && o->ino == v->ino &&
            o->dev == v->dev && strcmp(strings + o->path, strings + v->path) == 0)
            return true;
    return false;
}

/**
 * Whether the files of mappings @p from to, but not, @p to of areas.vmas are those that they
 * were: nobody has replaced or changed one. Of libraries the keeper finds out, at leisure: once
 * the pool has a copy, it does not matter to an epoch whether the file has been replaced just
 * before it or just after it.
 */
static bool files_same(size_t from, size_t to)
{
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)ph_agent.areas.vmas.base,
                           *last = NULL;
    size_t n = ph_agent.areas.vmas.used / sizeof *v;
    for (size_t i = from; i < to && i < n; i++) {
        if (!v[i].ino || (last && last->path == v[i].path) ||
            (look.held && v[i].kind == PH_VMA_FILE && has_text(v, v + n, v + i)))
            continue;
        struct ph_vma_pm now = v[i];
        now.flags &= ~(uint32_t)PH_VMA_SEGMENT;
        look_at_file(&now, v[i].kind == PH_VMA_SHARED_FILE || v[i].kind == PH_VMA_SHARED_ANON);
        if (now.kind != v[i].kind || now.flags != v[i].flags || now.size != v[i].size ||
            now.mtime_ns != v[i].mtime_ns)
            return false;
        last = v + i;
    }
    return true;
}

static void look_at_piece(uint32_t number)
{
    if (atomic_load(&look.other))
        return;
    if (number < look.scans) {
        if (ph_pages_early_scan(number) && look.outside)
            atomic_store(&look.other, true);
        return;
    }
    number -= look.scans;
    size_t at = (size_t)(number < look.bounds ? number : number - look.bounds) * PIECE;
    if (!(number < look.bounds ? bounds_same : files_same)(at, at + PIECE))
        atomic_store(&look.other, true);
}

static uint32_t pieces_of(size_t n)
{
    return (uint32_t)((n + PIECE - 1) / PIECE);
}

/** Whether all mappings and their files are as the table has them. */
static bool all_same(void)
{
    static struct ph_asked asked; /* about all */
    bool every;
    struct ph_vma_pm *v = (struct ph_vma_pm *)ph_agent.areas.vmas.base;
    size_t n = ph_agent.areas.vmas.used / sizeof *v;
    for (size_t i = 0; i < n; i++)
        v[i].flags &= ~(uint32_t)PH_VMA_EMBEDDED; /* files.c finds out */
    look.bounds = pieces_of(ph_agent.areas.bounds.used / sizeof(struct bounds) + 1);
    atomic_store(&look.other, false);
    look.held = ph_mapped_hold();
    look.scans = ph_pages_early_prepare(&every);
    look.outside = every && ph_asked_holds(&asked, PH_CALLS_MAPPINGS);
    if (!look.outside)
        asked = ph_asked_now(PH_CALLS_MAPPINGS);
    ph_pieces_do(look.scans + look.bounds + pieces_of(n), look_at_piece);
    bool same = !atomic_load(&look.other);
    if (!same)
        asked = (struct ph_asked){0};
    return same;
}

/** Whether the heap is within what the table has of it. */
static bool heap_same(void)
{
    struct ph_span now[PH_HEAP_PARTS];
    ph_heap_memory_spans(now);
    return memcmp(now, heap_span, sizeof now) == 0;
}

/** The executable's name, if its file is mapped: as long as the table holds, it is that. */
static uint32_t mapped_executable(void)
{
    const struct ph_vma_pm *v = (const struct ph_vma_pm *)ph_agent.areas.vmas.base,
                           *end = v + ph_agent.areas.vmas.used / sizeof *v;
    char name[4096];
    ssize_t n = readlink("/proc/self/exe", name, sizeof name - 1);
    name[n > 0 ? n : 0] = 0;
    for (; n > 0 && v < end; v++)
        if (v->kind == PH_VMA_FILE &&
            strcmp(name, (const char *)ph_agent.areas.strings.base + v->path) == 0)
            return v->path;
    return 0;
}

uint32_t ph_memory_executable(void)
{
    return table.exe ? table.exe : ph_record_link("/proc/self/exe");
}

static bool table_holds(void)
{
    if (!table.valid || !heap_same() || table.generation != ph_agent.generation ||
        ph_capture.full)
        return false;
    return all_same();
}

int ph_memory_map(struct ph_record_pm *record)
{
    bool same = table_holds();
    int rc = 0;
    if (!same)
        ph_pages_early_forget();
    table.valid = false;
    if (!same) {
        rc = read_mappings();
        if (rc == 0) {
            ph_memory_flags(ph_capture.full);
            note_inside();
        }
        if (rc == 0)
            rc = read_mm(&table.mm);
        table.exe = rc == 0 ? mapped_executable() : 0;
        table.strings = ph_agent.areas.strings.used;
        table.generation = ph_agent.generation;
    }
    ph_agent.areas.strings.used = table.strings;
    table.valid = rc == 0;
    ph_agent.same_mappings = same;
    record->mm = table.mm;
    record->mm.brk = (uint64_t)(uintptr_t)sbrk(0);
    return rc;
}
