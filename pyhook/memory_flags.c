/* SPDX-License-Identifier: MIT */
/*
 * memory_flags.c - what the program has asked of the kernel for its mappings: madvise, mlock
 *
 * Only /proc/self/smaps tells (VmFlags, proc_pid_smaps(5)), and reading it walks all page
 * tables: measured 20 ms for 1 GiB. So it is read for a full epoch and when there is a mapping
 * that the last reading did not have; the heap's are known without. Advice that is given later
 * to a mapping as a whole is therefore noticed with the next new mapping only.
 */
#include "agent_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** The last reading, ascending. */
static struct known {
    uint64_t start, end;
    uint32_t flags;
} known[4096];
static size_t nknown;

static const struct {
    char code[4];
    uint32_t flag;
} codes[] = {{" dc", PH_VMA_DONTFORK}, {" wf", PH_VMA_WIPEONFORK}, {" dd", PH_VMA_DONTDUMP},
             {" hg", PH_VMA_HUGEPAGE}, {" nh", PH_VMA_NOHUGEPAGE}, {" lo", PH_VMA_LOCKED},
             {" dp", PH_VMA_DROPPABLE}};

static uint32_t flags_of(const char *line, size_t length)
{
    uint32_t flags = 0;
    for (size_t i = 0; i + 3 <= length; i++)
        for (size_t c = 0; c < sizeof codes / sizeof codes[0]; c++)
            if (memcmp(line + i, codes[c].code, 3) == 0)
                flags |= codes[c].flag;
    return flags;
}

static bool heading(const char *line)
{
    size_t n = strspn(line, "0123456789abcdef");
    return n > 0 && line[n] == '-';
}

static void read_smaps(void)
{
    struct ph_area *text = &ph_agent.areas.text;
    text->used = nknown = 0;
    if (ph_read_file("/proc/self/smaps", text) < 0)
        return;
    struct known k = {0};
    for (const char *p = (const char *)text->base; *p;) {
        size_t n = strcspn(p, "\n");
        if (heading(p)) {
            char *end;
            k.start = strtoull(p, &end, 16);
            k.end = strtoull(end + 1, NULL, 16);
        } else if (strncmp(p, "VmFlags:", 8) == 0 && nknown < sizeof known / sizeof known[0]) {
            k.flags = flags_of(p + 8, n - 8);
            known[nknown++] = k;
        }
        p += n + (p[n] == '\n');
    }
}

static bool in_heap(const struct ph_vma_pm *v)
{
    return v->start >= PH_HEAP_BASE && v->end <= PH_HEAP_END;
}

/** Whether it is the same mapping; two of them grow as the program runs: brk and the stack. */
static bool same(const struct known *k, const struct ph_vma_pm *v, uint64_t brk)
{
    if (v->flags & PH_VMA_GROWSDOWN)
        return k->end == v->end;
    return k->start == v->start && (k->end == v->end || v->end == brk);
}

/** Set the flags of all mappings as far as they are known. @return whether all of them are. */
static bool apply(struct ph_vma_pm *v, size_t n)
{
    uint64_t brk = ((uint64_t)(uintptr_t)sbrk(0) + PH_PAGE - 1) & ~(PH_PAGE - 1);
    size_t k = 0;
    bool all = true;
    for (size_t i = 0; i < n; i++) {
        if (in_heap(&v[i]))
            continue;
        while (k < nknown && known[k].start < v[i].start)
            k++;
        bool is = k < nknown && same(&known[k], &v[i], brk);
        if (is)
            v[i].flags |= known[k].flags;
        all &= is;
    }
    return all;
}

void ph_memory_flags(bool full)
{
    struct ph_vma_pm *v = (struct ph_vma_pm *)ph_agent.areas.vmas.base;
    size_t n = ph_agent.areas.vmas.used / sizeof *v;
    if (!full && apply(v, n))
        return;
    read_smaps();
    apply(v, n);
}
