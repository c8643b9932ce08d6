/* SPDX-License-Identifier: MIT */
/* record.c - whether a process record is well formed; R1 to R8 are record.h's */
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
        if (!t[i].context || !t[i].fs || !t[i].tid_address || !t[i].cleared_address ||
            memchr(t[i].name, 0, 16) == NULL)
            return "R4: a thread";
    }
    return leaders == 1 && callers == 1 ? NULL : "R4: leader and caller";
}

/** Whether the data of @p f are chunks, one behind the other. */
static bool chunks_fit(const struct ph_file_pm *f, const char *data)
{
    for (uint64_t at = 0; at < f->data_size;) {
        const struct ph_chunk_pm *c = (const void *)(data + at);
        uint64_t room = f->data_size - at;
        if (room < sizeof *c || c->size > room - sizeof *c || c->offset > INT64_MAX - c->size)
            return false;
        at += sizeof *c + ((c->size + 7) & ~UINT64_C(7));
    }
    return true;
}

static bool watches_fit(const struct ph_record_pm *r, const struct ph_file_pm *f,
                        const void *data)
{
    const struct ph_watch_pm *w = data;
    for (uint64_t i = 0; i < f->data_size / sizeof *w; i++)
        if (w[i].wd < 1 || w[i].wd > PH_WATCH_MAX || !string_fits(r, w[i].path))
            return false;
    return f->data_size % sizeof *w == 0;
}

/** R5 */
static bool data_fits(const struct ph_record_pm *r, const struct ph_file_pm *f)
{
    if (f->data_offset % 8 || f->data_size % 8 || f->data_size > r->data.count ||
        f->data_offset > r->data.count - f->data_size)
        return false;
    const char *data = (const char *)r + r->data.offset + f->data_offset;
    switch ((enum ph_file_kind)f->kind) {
    case PH_FILE_REGULAR:
        return f->data_size == 0 || ((f->flags & PH_FILE_DELETED) && chunks_fit(f, data));
    case PH_FILE_PIPE:
    case PH_FILE_SOCKPAIR:
        return chunks_fit(f, data);
    case PH_FILE_EPOLL:
        return f->data_size % sizeof(struct ph_epoll_pm) == 0;
    case PH_FILE_TIMERFD:
        return f->data_size == sizeof(struct ph_timerfd_pm) || f->same_as >= 0;
    case PH_FILE_INOTIFY:
        return watches_fit(r, f, data);
    case PH_FILE_DEAD: /* what had been found before it turned out to be so */
        return true;
    case PH_FILE_INHERIT:
    case PH_FILE_DIRECTORY:
    case PH_FILE_CHAR:
    case PH_FILE_PATH:
    case PH_FILE_EVENTFD:
    case PH_FILE_SIGNALFD:
        return f->data_size == 0;
    }
    return false;
}

static const char *check_files(const struct ph_record_pm *r)
{
    const struct ph_file_pm *f = (const void *)((const char *)r + r->files.offset);
    int32_t last = -1;
    for (uint64_t i = 0; i < r->files.count; i++) {
        if (f[i].fd <= last || f[i].kind < PH_FILE_INHERIT || f[i].kind > PH_FILE_DEAD ||
            f[i].same_as >= f[i].fd || !string_fits(r, f[i].path))
            return "a descriptor";
        if (!data_fits(r, &f[i]))
            return "R5: a descriptor's data";
        last = f[i].fd;
    }
    return NULL;
}

static const char *check_locks(const struct ph_record_pm *r)
{
    const struct ph_file_pm *f = (const void *)((const char *)r + r->files.offset);
    const struct ph_lock_pm *l = (const void *)((const char *)r + r->locks.offset);
    for (uint64_t i = 0; i < r->locks.count; i++) {
        uint64_t j = 0;
        while (j < r->files.count && f[j].fd != l[i].fd)
            j++;
        if (j == r->files.count || l[i].kind < PH_LOCK_POSIX || l[i].kind > PH_LOCK_FLOCK ||
            l[i].start > INT64_MAX || l[i].length > INT64_MAX - l[i].start)
            return "R6: a lock";
    }
    return NULL;
}

static const char *check_timers(const struct ph_record_pm *r)
{
    const struct ph_thread_pm *thread = (const void *)((const char *)r + r->threads.offset);
    const struct ph_timer_pm *t = (const void *)((const char *)r + r->timers.offset);
    for (uint64_t i = 0; i < r->timers.count; i++) {
        uint64_t j = 0;
        while (j < r->threads.count && t[i].tid && thread[j].tid != t[i].tid)
            j++;
        if (j == r->threads.count || t[i].id < 0 || t[i].signal < 0 || t[i].signal > 64)
            return "R7: a timer";
        for (j = 0; j < i; j++)
            if (t[j].id == t[i].id)
                return "R7: a timer's number";
    }
    return NULL;
}

/** Whether [start, start + size) lies in private mappings with all of @p prot. */
static bool is_mapped(const struct ph_record_pm *r, uint64_t start, uint64_t size,
                      uint32_t prot)
{
    const struct ph_vma_pm *v = (const void *)((const char *)r + r->vmas.offset);
    uint64_t end;
    if (__builtin_add_overflow(start, size, &end))
        return false;
    for (uint64_t i = 0; i < r->vmas.count && start < end; i++) {
        bool fits = (v[i].prot & prot) == prot;
        if (v[i].start <= start && start < v[i].end && fits)
            start = v[i].end;
    }
    return start >= end;
}

static const char *check_addresses(const struct ph_record_pm *r)
{
    const uint64_t frame = 512; /* of the ucontext, as far as the restorer reads it */
    const struct ph_thread_pm *t = (const void *)((const char *)r + r->threads.offset);
    for (uint64_t i = 0; i < r->threads.count; i++) {
        if (!is_mapped(r, t[i].context, frame, 1))
            return "R8: a thread's frame";
        if (!is_mapped(r, t[i].tid_address, 4, 3) || !is_mapped(r, t[i].cleared_address, 4, 3))
            return "R8: where a thread keeps its id";
        if (r->clock_offsets &&
            !is_mapped(r, t[i].fs + r->clock_thread, sizeof(struct ph_clock_thread), 3))
            return "R8: a thread's clock";
    }
    if (r->clock_offsets && !is_mapped(r, r->clock_offsets, sizeof(struct ph_clock_offsets), 3))
        return "R8: the clocks";
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
        !table_fits(&r->locks, sizeof(struct ph_lock_pm), size) ||
        !table_fits(&r->timers, sizeof(struct ph_timer_pm), size) ||
        !table_fits(&r->auxv, 1, size) || !table_fits(&r->vdso, 1, size) ||
        !table_fits(&r->data, 1, size) || !table_fits(&r->strings, 1, size))
        return PH_ECORRUPT;
    *why = "R2: strings";
    const char *strings = (const char *)r + r->strings.offset;
    if (r->strings.count == 0 || strings[r->strings.count - 1] != 0 ||
        !string_fits(r, r->cwd) || !string_fits(r, r->exe) || !string_fits(r, r->hostname))
        return PH_ECORRUPT;
    if ((*why = check_vmas(r)) || (*why = check_threads(r)) || (*why = check_files(r)) ||
        (*why = check_locks(r)) || (*why = check_timers(r)) || (*why = check_addresses(r)))
        return PH_ECORRUPT;
    return 0;
}

const char *ph_record_text(const struct ph_record_pm *record, uint32_t reference)
{
    return (const char *)record + record->strings.offset + reference;
}
