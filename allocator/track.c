/* SPDX-License-Identifier: MIT */
/* track.c - changed pages by userfaultfd write-protection; see track.h */
#include "track.h"

#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
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

int ph_track_open(struct ph_track *track, int lowest_fd)
{
    track->pagemap = -1;
    track->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (track->uffd < 0)
        return errno == ENOMEM ? PH_ENOMEM : PH_EKERNEL;
    track->uffd = move_high(track->uffd, lowest_fd);
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED};
    if (ioctl(track->uffd, UFFDIO_API, &api) != 0)
        goto fail;
    track->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (track->pagemap < 0)
        goto fail;
    track->pagemap = move_high(track->pagemap, lowest_fd);

    /* The scan is younger than the write-protection: ask for nothing, to see that it is there.
     */
    struct ph_track_region region;
    uint64_t at = PH_CONTROL_BASE;
    if (ph_track_scan(track, PH_TRACK_PRESENT, &at, at + PH_PAGE, &region, 1) < 0)
        goto fail;
    return 0;
fail:;
    int saved = errno;
    ph_track_close(track);
    errno = saved;
    return PH_EKERNEL;
}

void ph_track_close(struct ph_track *track)
{
    if (track->uffd >= 0)
        close(track->uffd);
    if (track->pagemap >= 0)
        close(track->pagemap);
    track->uffd = track->pagemap = -1;
}

long ph_track_scan(const struct ph_track *track, enum ph_track_what what, uint64_t *at,
                   uint64_t end, struct ph_track_region *out, size_t max)
{
    struct pm_scan_arg arg = {
        .size = sizeof arg,
        .start = *at,
        .end = end,
        .vec = (uintptr_t)out,
        .vec_len = max,
        .category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        .return_mask = PAGE_IS_FILE, /* never set: neighbours always join */
    };
    switch (what) {
    case PH_TRACK_CHANGED:
        arg.flags = PM_SCAN_WP_MATCHING;
        arg.category_mask |= PAGE_IS_WRITTEN;
        break;
    case PH_TRACK_UNREGISTERED:
        arg.category_mask |= PAGE_IS_WPALLOWED;
        arg.category_inverted |= PAGE_IS_WPALLOWED;
        break;
    case PH_TRACK_PRESENT:
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
    *at = arg.walk_end;
    return n;
}

int ph_track_register(const struct ph_track *track, uint64_t start, uint64_t end)
{
    struct uffdio_register reg = {.range = {start, end - start},
                                  .mode = UFFDIO_REGISTER_MODE_WP};
    return ioctl(track->uffd, UFFDIO_REGISTER, &reg) == 0 ? 0 : PH_EKERNEL;
}
