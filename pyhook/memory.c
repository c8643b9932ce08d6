/* SPDX-License-Identifier: MIT */
/*
 * memory.c - the program's mappings: /proc/self/maps (proc(5)), classified
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
