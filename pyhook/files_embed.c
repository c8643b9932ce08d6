/* SPDX-License-Identifier: MIT */
/*
 * files_embed.c - files that an epoch carries itself: those without a name, and those whose
 * name is as volatile as the program
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define EMBED_MAX (UINT64_C(64) << 20) /* bytes of a deleted file that an epoch carries */

/**
 * The first part of [*start, end) of the file of @p f that is in no shared mapping: *start and
 * the result are its ends. What is mapped is saved with the pages.
 */
static uint64_t unmapped_part(const struct ph_file_pm *f, uint64_t *start, uint64_t end)
{
    const struct ph_vma_pm *all = (const struct ph_vma_pm *)ph_agent.areas.vmas.base;
    size_t n = ph_agent.areas.vmas.used / sizeof *all;
    for (bool again = true; again;) {
        again = false;
        for (const struct ph_vma_pm *v = all; v < all + n; v++) {
            uint64_t to = v->offset + (v->end - v->start);
            if (v->kind != PH_VMA_SHARED_ANON || v->ino != f->ino || v->dev != f->dev ||
                (v->flags & PH_VMA_EMBEDDED) || v->offset >= end || to <= *start)
                continue;
            if (v->offset <= *start) {
                *start = to;
                again = *start < end;
            } else {
                end = v->offset;
            }
        }
    }
    return *start < end ? end : *start;
}

static bool embed_part(struct ph_file_pm *f, int fd, uint64_t start, uint64_t end)
{
    while (start < end) {
        uint64_t to = unmapped_part(f, &start, end);
        if (to <= start)
            return true;
        if (f->data_size + (to - start) > EMBED_MAX)
            return false;
        unsigned char *at = ph_files_chunk(f, start, to - start);
        if (!at)
            return false;
        while (start < to) {
            ssize_t n = pread(fd, at, to - start, (off_t)start);
            if (n <= 0)
                return false;
            at += n;
            start += (uint64_t)n;
        }
    }
    return true;
}

/** Mappings of a file that nobody can write to any more: it is saved, and they are not. */
static void claim_mappings(const struct ph_file_pm *f)
{
    struct ph_vma_pm *v = (struct ph_vma_pm *)ph_agent.areas.vmas.base;
    size_t n = ph_agent.areas.vmas.used / sizeof *v;
    for (size_t i = 0; i < n; i++)
        if (v[i].kind == PH_VMA_SHARED_ANON && v[i].ino == f->ino && v[i].dev == f->dev)
            v[i].flags |= PH_VMA_EMBEDDED;
}

bool ph_files_embed(struct ph_file_pm *f, const char *name)
{
    char path[40] = "/proc/self/fd/", number[24];
    f->flags |= PH_FILE_DELETED;
    if (strncmp(name, "/memfd:", 7) == 0)
        f->flags |= PH_FILE_MEMFD;
    if (ph_segments_made(name))
        f->flags |= PH_FILE_SEGMENT;
    size_t n;
    for (const struct ph_file_pm *g = ph_files_all(&n); g < f; g++)
        if (g->kind == PH_FILE_REGULAR && g->ino == f->ino && g->dev == f->dev) {
            f->detail = g->detail;
            return true; /* another description of a file that is saved already */
        }
    int seals = fcntl(f->fd, F_GET_SEALS);
    f->detail = seals < 0 ? F_SEAL_SEAL : (uint32_t)seals;
    if (f->detail & F_SEAL_WRITE)
        claim_mappings(f);
    /* A description of our own: the program's has a position, or is for writing only. But
     * closing that would lose the process's locks on the file (fcntl(2)). */
    bool borrow =
        (f->open_flags & O_ACCMODE) == O_RDWR && strstr(ph_files_info(f->fd), "POSIX");
    int fd = borrow ? f->fd
                    : open(strcat(path, ph_format_u64(number, (uint64_t)f->fd)),
                           O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0;
    for (uint64_t at = 0; ok && at < f->size;) {
        off_t from = lseek(fd, (off_t)at, SEEK_DATA);
        off_t to = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);
        if (from < 0 && errno == ENXIO)
            break;
        ok = from >= 0 && to > from && embed_part(f, fd, (uint64_t)from, (uint64_t)to);
        at = (uint64_t)to;
    }
    if (borrow)
        lseek(fd, (off_t)f->position, SEEK_SET);
    else if (fd >= 0)
        close(fd);
    return ok;
}
