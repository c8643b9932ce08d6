/* SPDX-License-Identifier: MIT */
/* track.c - changed pages by userfaultfd write-protection or soft-dirty bits; see track.h */
#include "track.h"

#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* Constants of Linux 6.7 that Debian 12's headers lack: include/uapi/linux/userfaultfd.h and
 * include/uapi/linux/fs.h. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef PAGEMAP_SCAN
#define PAGE_IS_WPALLOWED   (1u << 0)
#define PAGE_IS_WRITTEN     (1u << 1)
#define PAGE_IS_FILE        (1u << 2)
#define PAGE_IS_PRESENT     (1u << 3)
#define PAGE_IS_SWAPPED     (1u << 4)
#define PAGE_IS_PFNZERO     (1u << 5)
#define PM_SCAN_WP_MATCHING (1u << 0)
struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

static int move_high(int fd, int lowest)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
    if (high < 0)
        return fd;
    close(fd);
    return high;
}

/** A userfaultfd with asynchronous write-protection, or -1. */
static int open_uffd(int lowest_fd)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0)
        return -1;
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED};
    if (ioctl(fd, UFFDIO_API, &api) != 0) {
        close(fd);
        return -1;
    }
    return move_high(fd, lowest_fd);
}

/* Bits of an entry of the page map: pagemap.rst. */
#define ENTRY_PRESENT    (UINT64_C(3) << 62) /* or swapped */
#define ENTRY_FILE       (UINT64_C(1) << 61)
#define ENTRY_SOFT_DIRTY (UINT64_C(1) << 55)

static bool soft_dirty(const struct ph_track *track, const void *page)
{
    uint64_t entry = 0;
    return pread(track->pagemap, &entry, 8, (off_t)((uintptr_t)page / PH_PAGE * 8)) == 8 &&
           (entry & ENTRY_SOFT_DIRTY);
}

/** Whether this kernel keeps soft-dirty bits, by trying: where it does not, nothing fails. */
static bool keeps_soft_dirty(const struct ph_track *track)
{
    volatile unsigned char *page =
        mmap(NULL, PH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    *page = 1;
    bool kept = soft_dirty(track, (const void *)page) && ph_track_clear(track) == 0 &&
                !soft_dirty(track, (const void *)page);
    *page = 2;
    kept = kept && soft_dirty(track, (const void *)page);
    munmap((void *)page, PH_PAGE);
    return kept;
}

int ph_track_open(struct ph_track *track, int lowest_fd)
{
    *track = (struct ph_track){.uffd = -1, .maps = -1};
    ph_track_begin(track);
    track->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (track->pagemap < 0)
        return PH_EKERNEL;
    track->pagemap = move_high(track->pagemap, lowest_fd);
    track->maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (track->maps >= 0)
        track->maps = move_high(track->maps, lowest_fd);
    /* Ask the scan for nothing, to see whether it is there. Tracking is of no use without. */
    struct ph_track_region region;
    uint64_t at = PH_CONTROL_BASE;
    track->scan = true;
    track->scan = ph_track_scan(track, PH_TRACK_PRESENT, &at, at + PH_PAGE, &region, 1) >= 0;
    if (track->scan)
        track->uffd = open_uffd(lowest_fd);
    track->soft_dirty = track->uffd < 0 && keeps_soft_dirty(track);
    return 0;
}

void ph_track_begin(struct ph_track *track)
{
    struct sysinfo info;
    track->swap = sysinfo(&info) != 0 || info.totalswap != 0;
}

void ph_track_close(struct ph_track *track)
{
    if (track->uffd >= 0)
        close(track->uffd);
    if (track->pagemap >= 0)
        close(track->pagemap);
    if (track->maps >= 0)
        close(track->maps);
    track->uffd = track->pagemap = track->maps = -1;
}

/** Pages with content of their own, as PH_TRACK_PRESENT, by reading the page map; of them those
 *  with all of @p bits. */
static long read_entries(const struct ph_track *track, uint64_t bits, uint64_t *at,
                         uint64_t end, struct ph_track_region *out, size_t max)
{
    uint64_t entry[512];
    long found = 0;
    while (*at < end) {
        uint64_t want = (end - *at) / PH_PAGE;
        if (want > sizeof entry / sizeof entry[0])
            want = sizeof entry / sizeof entry[0];
        ssize_t n = pread(track->pagemap, entry, want * 8, (off_t)(*at / PH_PAGE * 8));
        if (n < 8)
            return PH_EKERNEL;
        for (ssize_t i = 0; i < n / 8; i++, *at += PH_PAGE) {
            if (!(entry[i] & ENTRY_PRESENT) || (entry[i] & ENTRY_FILE) ||
                (entry[i] & bits) != bits)
                continue;
            if (found && out[found - 1].end == *at) {
                out[found - 1].end += PH_PAGE;
            } else if ((size_t)found < max) {
                out[found++] = (struct ph_track_region){*at, *at + PH_PAGE, 0};
            } else {
                return found;
            }
        }
    }
    return found;
}

void ph_track_note_begin(struct ph_track *track, struct ph_track_region *room, size_t max)
{
    track->noted = room;
    track->nnoted = 0;
    track->noted_max = max;
}

int ph_track_note(struct ph_track *track, uint64_t start, uint64_t end)
{
    while (start < end) {
        if (track->nnoted == track->noted_max) { /* one region for all that is left */
            track->noted[track->nnoted - 1].end = end;
            return 0;
        }
        long n = read_entries(track, ENTRY_SOFT_DIRTY, &start, end,
                              track->noted + track->nnoted, track->noted_max - track->nnoted);
        if (n < 0)
            return PH_EKERNEL;
        track->nnoted += (size_t)n;
    }
    return 0;
}

int ph_track_clear(const struct ph_track *track)
{
    (void)track;
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return PH_EKERNEL;
    bool cleared = write(fd, "4", 1) == 1;
    int error = errno;
    close(fd);
    errno = error;
    return cleared ? 0 : PH_EKERNEL;
}

/** What has been noted of [*at, end). */
static long read_noted(const struct ph_track *track, uint64_t *at, uint64_t end,
                       struct ph_track_region *out, size_t max)
{
    size_t low = 0, high = track->nnoted; /* the first that ends above *at */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (track->noted[middle].end <= *at)
            low = middle + 1;
        else
            high = middle;
    }
    size_t n = 0;
    for (const struct ph_track_region *r = track->noted + low;
         n < max && r < track->noted + track->nnoted && r->start < end; r++)
        out[n++] = (struct ph_track_region){r->start > *at ? r->start : *at,
                                            r->end < end ? r->end : end, 0};
    *at = n == max ? out[n - 1].end : end;
    return (long)n;
}

long ph_track_scan(const struct ph_track *track, enum ph_track_what what, uint64_t *at,
                   uint64_t end, struct ph_track_region *out, size_t max)
{
    if (track->soft_dirty && (what == PH_TRACK_CHANGED || what == PH_TRACK_WRITTEN))
        return read_noted(track, at, end, out, max);
    bool present = what == PH_TRACK_PRESENT || what == PH_TRACK_ANONYMOUS;
    if (track->soft_dirty && !present) {
        *at = end;
        return 0;
    }
    if (!track->scan)
        return present ? read_entries(track, 0, at, end, out, max) : PH_EKERNEL;
    /* The kernel gets memory for as many regions as there is room for, at most 512. */
    if (max > (end - *at) / PH_PAGE / 2 + 1)
        max = (end - *at) / PH_PAGE / 2 + 1;
    struct pm_scan_arg arg = {
        .size = sizeof arg,
        .start = *at,
        .end = end,
        .vec = (uintptr_t)out,
        .vec_len = max,
        .category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_anyof_mask = PAGE_IS_PRESENT | (track->swap ? PAGE_IS_SWAPPED : 0),
        .return_mask = PAGE_IS_FILE, /* never set: neighbours always join */
    };
    switch (what) {
    case PH_TRACK_CHANGED:
        arg.flags = PM_SCAN_WP_MATCHING;
        /* fall through */
    case PH_TRACK_WRITTEN:
        /* Exactly this: fs/proc/task_mmu.c has a short way for it. */
        arg.category_mask = arg.return_mask = PAGE_IS_WRITTEN;
        arg.category_inverted = arg.category_anyof_mask = 0;
        break;
    case PH_TRACK_UNREGISTERED:
        arg.category_mask = arg.category_inverted = arg.return_mask = PAGE_IS_WPALLOWED;
        arg.category_anyof_mask = 0;
        break;
    case PH_TRACK_PRESENT:
        break;
    case PH_TRACK_ANONYMOUS: /* not to look for each page's file is what makes it fast */
        arg.category_mask = arg.category_inverted = arg.return_mask = PAGE_IS_PFNZERO;
        break;
    case PH_TRACK_POPULATED: /* the marks look like swapped pages */
        arg.category_mask = arg.category_inverted = 0;
        arg.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        arg.return_mask = PAGE_IS_WPALLOWED;
        break;
    case PH_TRACK_PROTECT:
        arg.flags = PM_SCAN_WP_MATCHING;
        break;
    }
    long n;
    do
        n = ioctl(track->pagemap, PAGEMAP_SCAN, &arg);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return PH_EKERNEL;
    /* Only a full vector ends a scan early. walk_end may lag behind even when the scan went to
     * the end: it keeps the value of the last of the rounds of 512 regions that the kernel
     * works in (do_pagemap_scan in fs/proc/task_mmu.c), and pages would be reported twice. */
    *at = n > 0 && (size_t)n == max ? out[n - 1].end : end;
    return n;
}

int ph_track_register(const struct ph_track *track, uint64_t start, uint64_t end)
{
    if (track->uffd < 0)
        return 0;
    struct uffdio_register reg = {.range = {start, end - start},
                                  .mode = UFFDIO_REGISTER_MODE_WP};
    return ioctl(track->uffd, UFFDIO_REGISTER, &reg) == 0 ? 0 : PH_EKERNEL;
}

int ph_track_unprotect(const struct ph_track *track, uint64_t start, uint64_t end)
{
    struct uffdio_writeprotect all = {.range = {start, end - start},
                                      .mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE};
    int rc;
    do
        rc = ioctl(track->uffd, UFFDIO_WRITEPROTECT, &all);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : PH_EKERNEL;
}
