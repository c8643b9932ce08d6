/* SPDX-License-Identifier: MIT */
/* record.c - whether a process record is well formed; R1 to R4 are record.h's */
#include "recovery.h"

#include <string.h>

static bool table_fits(const struct ph_table_pm *t, size_t entry, size_t size)
{
    return t->offset % 8 == 0 && t->offset <= size && t->count <= (size - t->offset) / entry;
}

static bool string_fits(const struct ph_record_pm *r, uint32_t reference)
{
    return reference < r->strings.count;
}

static bool ours(uint64_t start, uint64_t end)
{
    return (start < PH_VDSO_END && end > PH_RESTORER_BASE) ||
           (start < PH_AGENT_END && end > PH_AGENT_BASE);
}

static const char *check_vmas(const struct ph_record_pm *r)
{
    const struct ph_vma_pm *v = (const void *)((const char *)r + r->vmas.offset);
    uint64_t last = 0;
    for (uint64_t i = 0; i < r->vmas.count; i++) {
        if (v[i].start < last || v[i].end <= v[i].start || (v[i].start | v[i].end) % PH_PAGE ||
            v[i].end > UINT64_C(1) << 47 || ours(v[i].start, v[i].end))
            return "R3: mappings";
        if (v[i].kind < PH_VMA_ANON || v[i].kind > PH_VMA_SHARED_ANON || v[i].prot > 7 ||
            !string_fits(r, v[i].path))
            return "R3: a mapping's kind";
        last = v[i].end;
    }
    return NULL;
}

static const char *check_threads(const struct ph_record_pm *r)
{
    const struct ph_thread_pm *t = (const void *)((const char *)r + r->threads.offset);
    unsigned leaders = 0, callers = 0;
    for (uint64_t i = 0; i < r->threads.count; i++) {
        leaders += (t[i].flags & PH_THREAD_LEADER) != 0;
        callers += (t[i].flags & PH_THREAD_CALLER) != 0;
        if (!t[i].context || !t[i].fs || !t[i].tid_address || memchr(t[i].name, 0, 16) == NULL)
            return "R4: a thread";
    }
    return leaders == 1 && callers == 1 ? NULL : "R4: leader and caller";
}

static const char *check_files(const struct ph_record_pm *r)
{
    const struct ph_file_pm *f = (const void *)((const char *)r + r->files.offset);
    int32_t last = -1;
    for (uint64_t i = 0; i < r->files.count; i++) {
        if (f[i].fd <= last || f[i].kind < PH_FILE_INHERIT || f[i].kind > PH_FILE_DEAD ||
            f[i].same_as >= f[i].fd || !string_fits(r, f[i].path))
            return "a descriptor";
        if (f[i].data_size > r->data.count || f[i].data_offset > r->data.count - f[i].data_size)
            return "R1: a descriptor's data";
        last = f[i].fd;
    }
    return NULL;
}

int ph_record_check(const void *record, size_t size, const char **why)
{
    const struct ph_record_pm *r = record;
    *why = "R1: size";
    if (size < sizeof *r || r->magic != PH_RECORD_MAGIC)
        return PH_ECORRUPT;
    if (r->version != PH_RECORD_VERSION)
        return PH_ENEWER;
    if (r->size != size || r->header_size != sizeof *r)
        return PH_ECORRUPT;
    *why = "R1: tables";
    if (!table_fits(&r->vmas, sizeof(struct ph_vma_pm), size) ||
        !table_fits(&r->threads, sizeof(struct ph_thread_pm), size) ||
        !table_fits(&r->files, sizeof(struct ph_file_pm), size) ||
        !table_fits(&r->auxv, 1, size) || !table_fits(&r->vdso, 1, size) ||
        !table_fits(&r->data, 1, size) || !table_fits(&r->strings, 1, size))
        return PH_ECORRUPT;
    *why = "R2: strings";
    const char *strings = (const char *)r + r->strings.offset;
    if (r->strings.count == 0 || strings[r->strings.count - 1] != 0 ||
        !string_fits(r, r->cwd) || !string_fits(r, r->exe) || !string_fits(r, r->hostname))
        return PH_ECORRUPT;
    if ((*why = check_vmas(r)) || (*why = check_threads(r)) || (*why = check_files(r)))
        return PH_ECORRUPT;
    return 0;
}

const char *ph_record_text(const struct ph_record_pm *record, uint32_t reference)
{
    return (const char *)record + record->strings.offset + reference;
}
