/* SPDX-License-Identifier: MIT */
/*
 * mapped.c - the files that the program has mapped, or the pool's copies of them
 *
 * Code and constants must be the very same bytes. A file with the size and modification time
 * that it had is taken to be the same, if it begins like the pool's copy; one that differs only
 * in its modification time is compared with the copy. Where the file is another or missing, the
 * copy's pages take its place: the mapping becomes anonymous memory with this content. So the
 * restorer knows nothing of all this; no descriptor is needed; and later epochs hold these
 * pages like any others, each of them staged once.
 */
#include "files.h"
#include "plan.h"
#include "recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct ph_vma_pm *vmas(const struct ph_record_pm *record)
{
    return (const void *)((const char *)record + record->vmas.offset);
}

static struct ph_file_id id_of(const struct ph_record_pm *record, const struct ph_vma_pm *v)
{
    return (struct ph_file_id){ph_record_text(record, v->path), v->size, v->mtime_ns};
}

static bool same_file(const struct ph_record_pm *record, const struct ph_vma_pm *a,
                      const struct ph_vma_pm *b)
{
    return a->kind == b->kind && a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->mtime_ns == b->mtime_ns &&
           strcmp(ph_record_text(record, a->path), ph_record_text(record, b->path)) == 0;
}

/** Whether the program itself was writing to the file of @p v: then it is the very file,
 * however it has changed, and a private mapping of it sees the changes as it always has
 * (mmap(2)). */
static bool its_own(const struct ph_record_pm *record, const struct ph_vma_pm *v,
                    const struct stat *st)
{
    const struct ph_vma_pm *all = vmas(record);
    const struct ph_file_pm *f = (const void *)((const char *)record + record->files.offset);
    bool writes = false;
    if (st->st_ino != v->ino || (uint64_t)st->st_size < v->size)
        return false;
    for (uint64_t i = 0; i < record->vmas.count && !writes; i++)
        writes = all[i].kind == PH_VMA_SHARED_FILE && (all[i].prot & PROT_WRITE) &&
                 all[i].ino == v->ino && all[i].dev == v->dev;
    for (uint64_t i = 0; i < record->files.count && !writes; i++)
        writes = (f[i].flags & PH_FILE_WRITABLE) && !(f[i].flags & PH_FILE_DELETED) &&
                 f[i].ino == v->ino && f[i].dev == v->dev;
    return writes;
}

/** Where the file of @p v is, if the program has renamed or removed it, or put another in its
 *  place, and has it open or not. */
static const char *new_name(const struct ph_recovery *r, const struct ph_vma_pm *v)
{
    const char *name = ph_recovery_new_name(r, v->dev, v->ino);
    const struct ph_vma_pm *all = vmas(r->record);
    for (size_t i = 0; r->nmoved && !name && i < r->record->vmas.count; i++)
        if (r->moved[i] && all[i].dev == v->dev && all[i].ino == v->ino)
            name = r->moved[i];
    return name;
}

/** @return 0, PH_ENOMEM */
static int look_for(struct ph_recovery *r, size_t i)
{
    const struct ph_vma_pm *v = vmas(r->record) + i;
    const char *path = ph_record_text(r->record, v->path);
    char buf[PATH_MAX];
    struct stat st;
    if (new_name(r, v) || (stat(path, &st) == 0 && st.st_ino == v->ino))
        return 0;
    if ((!ph_recovery_undo_left_at(r, path, buf) || stat(buf, &st) != 0 ||
         st.st_ino != v->ino) &&
        !ph_recovery_undo_keeps(r, path, v->dev, v->ino, buf))
        return 0;
    r->moved[i] = strdup(buf);
    r->nmoved++;
    return r->moved[i] ? 0 : PH_ENOMEM;
}

size_t ph_recovery_moved_size(const struct ph_recovery *r)
{
    size_t size = 0;
    for (size_t i = 0; i < r->record->vmas.count; i++)
        size += r->moved[i] ? strlen(r->moved[i]) + 1 : 0;
    return size;
}

void ph_recovery_mapped_free(struct ph_recovery *r)
{
    for (size_t i = 0; r->moved && i < r->record->vmas.count; i++)
        free(r->moved[i]);
    free(r->moved);
    free(r->copy);
    r->moved = NULL;
    r->copy = NULL;
}

/** Whether the file of @p v was removed, and @p name is where the pool keeps it, or a copy. */
static bool is_kept(const struct ph_recovery *r, const struct ph_vma_pm *v, const char *name)
{
    char kept[PATH_MAX];
    return name &&
           ph_recovery_undo_keeps(r, ph_record_text(r->record, v->path), v->dev, v->ino,
                                  kept) &&
           strcmp(kept, name) == 0;
}

/** What keeps the file on disk from being mapped, "": nothing. */
static const char *objection(struct ph_recovery *r, const struct ph_vma_pm *v,
                             const struct ph_stored *copy)
{
    struct stat st;
    const char *why = "";
    const char *renamed = new_name(r, v);
    int fd = open(renamed ? renamed : ph_record_text(r->record, v->path),
                  O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return strerror(errno);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        why = "not a regular file any more";
    } else if (v->kind == PH_VMA_SHARED_FILE) {
        if ((uint64_t)st.st_size < v->size)
            why = "is shorter than at the epoch";
    } else {
        uint64_t mtime =
            (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
        bool size = (uint64_t)st.st_size == v->size, time = mtime == v->mtime_ns;
        if (its_own(r->record, v, &st) || (size && is_kept(r, v, renamed)))
            why = "";
        else if (!size || (!time && !copy) ||
                 (copy && !ph_stored_equals(r->pool, copy, fd, !time)))
            why = "has been replaced since the epoch (an upgrade?); bring the old one back";
    }
    close(fd);
    return why;
}

static int fail(struct ph_recovery *r, int code, const char *path, const char *what)
{
    snprintf(r->detail, sizeof r->detail, "%s: %s", path, what);
    return code;
}

int ph_recovery_check_mapped(struct ph_recovery *r)
{
    const struct ph_vma_pm *v = vmas(r->record), *end = v + r->record->vmas.count, *before = v;
    const struct ph_stored *used = NULL;
    r->copy = calloc(r->record->vmas.count + 1, sizeof *r->copy);
    r->moved = calloc(r->record->vmas.count + 1, sizeof *r->moved);
    if (!r->copy || !r->moved)
        return PH_ENOMEM;
    for (size_t i = 0; v + i < end; i++) {
        if (v[i].kind != PH_VMA_FILE && v[i].kind != PH_VMA_SHARED_FILE)
            continue;
        if (before < v + i && same_file(r->record, before, v + i)) {
            r->copy[i] = used;
            continue;
        }
        struct ph_file_id id = id_of(r->record, v + i);
        const struct ph_stored *copy = r->pool ? ph_pool_file_find(r->pool, &id) : NULL;
        if (look_for(r, i) != 0)
            return PH_ENOMEM;
        const char *why = objection(r, v + i, copy);
        used = NULL;
        before = v + i;
        if (!why[0])
            continue;
        if (!copy)
            return fail(r, PH_EFILES, id.path, why);
        int rc = ph_stored_verify(r->pool, copy);
        if (rc)
            return fail(r, rc, id.path,
                        "it is missing or has been replaced, and the pool's "
                        "copy cannot be read");
        r->copy[i] = used = copy;
    }
    return 0;
}

const struct ph_stored *ph_recovery_copy_of(const struct ph_recovery *r,
                                            const struct ph_file_pm *f)
{
    const struct ph_vma_pm *v = vmas(r->record);
    if (f->kind != PH_FILE_REGULAR || (f->open_flags & O_ACCMODE) != O_RDONLY ||
        (f->flags & PH_FILE_DELETED))
        return NULL;
    for (size_t i = 0; i < r->record->vmas.count; i++)
        if (r->copy[i] && v[i].dev == f->dev && v[i].ino == f->ino)
            return r->copy[i];
    return NULL;
}

void ph_recovery_say_copies(const struct ph_recovery *r, const char *command)
{
    const struct ph_vma_pm *v = vmas(r->record);
    const struct ph_stored *last = NULL;
    unsigned n = 0;
    for (size_t i = 0; i < r->record->vmas.count; i++) {
        if (!r->copy[i] || r->copy[i] == last)
            continue;
        last = r->copy[i];
        if (n++ == 0)
            fprintf(stderr,
                    "%s: missing or replaced, so the pool's copies are used: ", command);
        if (n <= 3)
            fprintf(stderr, "%s%s", n > 1 ? ", " : "", ph_record_text(r->record, v[i].path));
    }
    if (n > 3)
        fprintf(stderr, " and %u more", n - 3);
    if (n)
        fputc('\n', stderr);
}

/* ---- the plan -----------------------------------------------------------------------------
 */

struct places {
    struct ph_place *place;
    size_t n, room;
};

static bool add(struct places *out, const struct ph_place *p)
{
    struct ph_place *last = out->n ? &out->place[out->n - 1] : NULL;
    if (last && last->how == p->how && ph_place_end(last) == p->addr &&
        last->offset + last->npages * PH_PAGE == p->offset) {
        last->npages += p->npages;
        return true;
    }
    if (out->n == out->room) {
        size_t room = out->room * 2 + 256;
        struct ph_place *bigger = realloc(out->place, room * sizeof *bigger);
        if (!bigger)
            return false;
        out->place = bigger;
        out->room = room;
    }
    out->place[out->n++] = *p;
    return true;
}

/** What the copy has for [from, to) of @p v. Beyond the file's end there is nothing. */
static bool add_copy(struct places *out, const struct ph_vma_pm *v,
                     const struct ph_stored *copy, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t n, place = ph_stored_place(copy, v->offset + (from - v->start), &n);
        if (!place)
            return true;
        if (n > (to - from) / PH_PAGE)
            n = (to - from) / PH_PAGE;
        if (!add(out, &(struct ph_place){from, n, place, 0, PH_PLACE_COPY}))
            return false;
        from += n * PH_PAGE;
    }
    return true;
}

struct ph_place *ph_recovery_places(const struct ph_recovery *r, const struct ph_view *view,
                                    size_t *n)
{
    size_t count;
    const struct ph_run *run = ph_view_runs(view, &count), *end = run + count;
    const struct ph_vma_pm *v = vmas(r->record);
    struct places out = {0};
    uint64_t taken = 0; /* of the first run: pages already out */
    uint64_t page = 0;  /* of the view */
    bool ok = true;
    for (size_t i = 0; ok && i <= r->record->vmas.count; i++) {
        bool copied = i < r->record->vmas.count && r->copy[i];
        if (!copied && i < r->record->vmas.count)
            continue;
        uint64_t at = copied ? v[i].start : UINT64_MAX, stop = copied ? v[i].end : UINT64_MAX;
        /* Pages of the epoch go before those of the copy. */
        while (ok && run < end && run->addr + taken * PH_PAGE < stop) {
            uint64_t start = run->addr + taken * PH_PAGE, left = run->npages - taken;
            if (start < at && start + left * PH_PAGE > at)
                left = (at - start) / PH_PAGE;
            else if (left > (stop - start) / PH_PAGE)
                left = (stop - start) / PH_PAGE;
            if (start >= at) {
                ok = add_copy(&out, &v[i], r->copy[i], at, start);
                at = start + left * PH_PAGE;
            }
            ok = ok && add(&out, &(struct ph_place){start, left, run->offset + taken * PH_PAGE,
                                                    page, PH_PLACE_READ});
            page += left;
            taken += left;
            if (taken == run->npages) {
                run++;
                taken = 0;
            }
        }
        if (copied)
            ok = ok && add_copy(&out, &v[i], r->copy[i], at, stop);
    }
    if (!ok || !out.place) {
        free(out.place);
        return NULL;
    }
    *n = out.n;
    return out.place;
}

/** The names that files have by now go behind the record, where its strings can reach. */
static void rename_mapped(const struct ph_recovery *r, struct ph_record_pm *record, size_t end)
{
    struct ph_vma_pm *v = (void *)((char *)record + record->vmas.offset);
    for (size_t i = 0; i < record->vmas.count; i++) {
        const char *name = v[i].kind == PH_VMA_FILE || v[i].kind == PH_VMA_SHARED_FILE
                               ? new_name(r, &v[i])
                               : NULL;
        if (!name)
            continue;
        size_t j = 0;
        while (j < i && (v[j].dev != v[i].dev || v[j].ino != v[i].ino))
            j++;
        if (j < i) {
            v[i].path = v[j].path;
            continue;
        }
        v[i].path = (uint32_t)(end - record->strings.offset);
        strcpy((char *)record + end, name);
        end += strlen(name) + 1;
    }
}

void ph_recovery_detach(const struct ph_recovery *r, struct ph_record_pm *record, size_t size)
{
    rename_mapped(r, record, size);
    struct ph_vma_pm *v = (void *)((char *)record + record->vmas.offset);
    for (size_t i = 0; i < record->vmas.count; i++)
        if (r->copy[i])
            v[i].kind = PH_VMA_ANON;
}

/* ---- --list --------------------------------------------------------------------------------
 */

size_t ph_recovery_needed(struct ph_pool *pool, const struct ph_record_pm *record,
                          uint64_t *bytes, size_t *missing, const char **first)
{
    const struct ph_vma_pm *v = vmas(record);
    size_t n = 0, last = SIZE_MAX;
    *bytes = *missing = 0;
    *first = "";
    for (size_t i = 0; i < record->vmas.count; i++) {
        if (v[i].kind != PH_VMA_FILE ||
            (last != SIZE_MAX && same_file(record, v + last, v + i)))
            continue;
        struct ph_file_id id = id_of(record, v + i);
        last = i;
        n++;
        if (ph_pool_file_find(pool, &id)) {
            *bytes += v[i].size;
        } else if ((*missing)++ == 0) {
            *first = id.path;
        }
    }
    return n;
}
