/* SPDX-License-Identifier: MIT */
/* Dirty tracking against the running kernel: every way in which a page can change shows. */
#include "allocator/error.h"
#include "allocator/track.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 256u
#define SIZE  ((size_t)PAGES * 4096)

static struct ph_track track;
static struct ph_track_region region[PAGES];

static long pages(enum ph_track_what what, const void *start, size_t size, size_t max)
{
    uint64_t at = (uintptr_t)start, end = at + size;
    long total = 0;
    while (at < end) {
        long n = ph_track_scan(&track, what, &at, end, region, max);
        cr_assert_geq(n, 0);
        for (long i = 0; i < n; i++)
            total += (long)((region[i].end - region[i].start) / PH_PAGE);
    }
    return total;
}

/** How many pages of [start, start + size) are reported; changed ones only if present. */
static long count(enum ph_track_what what, const void *start, size_t size)
{
    if (what == PH_TRACK_CHANGED) {
        struct ph_track_region changed[PAGES];
        uint64_t at = (uintptr_t)start, end = at + size;
        long n = ph_track_scan(&track, what, &at, end, changed, PAGES), total = 0;
        cr_assert_geq(n, 0);
        cr_assert_eq(at, end);
        for (long i = 0; i < n; i++)
            total += pages(PH_TRACK_PRESENT, (void *)(uintptr_t)changed[i].start,
                           changed[i].end - changed[i].start, PAGES);
        return total;
    }
    return pages(what, start, size, PAGES);
}

/** Of pages that begin with 1. */
static void read_all(const unsigned char *p)
{
    unsigned char sum = 0;
    for (unsigned i = 0; i < PAGES; i++)
        sum = (unsigned char)(sum + *(const volatile unsigned char *)(p + i * 4096));
    cr_assert_eq(sum, (unsigned char)PAGES);
}

static unsigned char *tracked(void)
{
    cr_assert_eq(ph_track_open(&track, 100), 0);
    if (!ph_track_protects(&track))
        cr_skip_test("this kernel has no asynchronous write-protection, or denies userfaultfd");
    cr_assert_geq(track.uffd, 100, "descriptors of ours stay out of the program's way");
    unsigned char *p =
        mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED);
    memset(p, 1, SIZE);
    cr_assert_eq(count(PH_TRACK_UNREGISTERED, p, SIZE), PAGES);
    cr_assert_eq(ph_track_register(&track, (uintptr_t)p, (uintptr_t)p + SIZE), 0);
    cr_assert_eq(count(PH_TRACK_PROTECT, p, SIZE), PAGES);
    cr_assert_eq(count(PH_TRACK_UNREGISTERED, p, SIZE), 0);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 0);
    return p;
}

Test(track, a_write_shows_once_and_reading_never)
{
    unsigned char *p = tracked();
    read_all(p);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 0);
    for (unsigned i = 0; i < 10; i++)
        p[i * 8192]++;
    /* Few at a time, so that the scan must be continued. */
    cr_assert_eq(pages(PH_TRACK_CHANGED, p, SIZE, 3), 10);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 0);
}

Test(track, scattered_pages_are_reported_once_each_however_many)
{
    cr_assert_eq(ph_track_open(&track, 100), 0);
    if (!ph_track_protects(&track))
        cr_skip_test("this kernel has no asynchronous write-protection, or denies userfaultfd");
    enum { PIECES = 2000 }; /* several of the kernel's rounds of 512 regions */
    static struct ph_track_region found[PIECES + 1];
    size_t size = (size_t)PIECES * 2 * 4096;
    unsigned char *p =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED);
    cr_assert_eq(madvise(p, size, MADV_NOHUGEPAGE), 0);
    for (size_t i = 0; i < PIECES; i++)
        p[i * 8192] = 1;
    cr_assert_eq(ph_track_register(&track, (uintptr_t)p, (uintptr_t)p + size), 0);
    const enum ph_track_what whats[] = {PH_TRACK_PRESENT, PH_TRACK_WRITTEN};
    for (size_t max = PIECES - 1; max <= PIECES + 1; max++)
        for (size_t w = 0; w < sizeof whats / sizeof whats[0]; w++) {
            uint64_t at = (uintptr_t)p, end = at + size, last = 0;
            size_t total = 0;
            while (at < end) {
                long n = ph_track_scan(&track, whats[w], &at, end, found, max);
                cr_assert_geq(n, 0);
                for (long i = 0; i < n; i++, total++) {
                    cr_assert_geq(found[i].start, last, "each once, ascending");
                    last = found[i].end;
                    if (whats[w] == PH_TRACK_PRESENT)
                        cr_assert_eq(found[i].end - found[i].start, PH_PAGE);
                }
            }
            if (whats[w] == PH_TRACK_PRESENT)
                cr_assert_eq(total, PIECES);
        }
}

Test(track, writes_by_system_calls_show)
{
    unsigned char *p = tracked();
    int zero = open("/dev/zero", O_RDONLY);
    cr_assert_eq(read(zero, p + 4096, 8192), 8192);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 2);
}

Test(track, discarded_pages_are_no_longer_present_and_change_when_written)
{
    unsigned char *p = tracked();
    cr_assert_eq(madvise(p, SIZE / 2, MADV_DONTNEED), 0);
    cr_assert_eq(count(PH_TRACK_PRESENT, p, SIZE), PAGES / 2);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 0);
    cr_assert_eq(*(volatile unsigned char *)p, 0);
    cr_assert_eq(count(PH_TRACK_PRESENT, p, SIZE), PAGES / 2, "T2: the zero page is nobody's");
    cr_assert_eq(count(PH_TRACK_ANONYMOUS, p, SIZE), PAGES / 2);
    p[0] = 1;
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 1);
}

Test(track, moved_and_new_mappings_count_as_changed)
{
    unsigned char *p = tracked();
    unsigned char *q = mremap(p, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
    cr_assert(q != MAP_FAILED);
    if (q != p)
        cr_assert_eq(count(PH_TRACK_UNREGISTERED, q, 2 * SIZE), 2 * PAGES, "T1");
    unsigned char *n =
        mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(n, 1, 4096);
    mprotect(n, SIZE, PROT_NONE);
    cr_assert_eq(count(PH_TRACK_UNREGISTERED, n, SIZE), PAGES, "whatever the protection");
    munmap(n, SIZE);
    cr_assert_eq(mmap(n, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), n);
    cr_assert_eq(count(PH_TRACK_UNREGISTERED, n, SIZE), PAGES, "also when nothing is present");
}

Test(track, a_private_file_page_shows_when_it_is_no_longer_the_files)
{
    tracked();
    char name[] = "/tmp/ph-track-XXXXXX";
    int fd = mkstemp(name);
    cr_assert_geq(fd, 0);
    unlink(name);
    cr_assert_eq(ftruncate(fd, SIZE), 0);
    unsigned char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    cr_assert(p != MAP_FAILED);
    for (unsigned i = 0; i < PAGES; i++)
        (void)*(volatile unsigned char *)(p + i * 4096);
    cr_assert_eq(count(PH_TRACK_PRESENT, p, SIZE), 0, "T2");
    p[5 * 4096] = 1;
    cr_assert_eq(count(PH_TRACK_PRESENT, p, SIZE), 1);
    cr_assert_eq(ph_track_register(&track, (uintptr_t)p, (uintptr_t)p + SIZE), 0);
    p[7 * 4096] = 1;
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 2);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 0);
}

Test(track, without_the_scan_the_page_map_tells_the_same)
{
    unsigned char *p = tracked();
    madvise(p + 3 * 4096, 5 * 4096, MADV_DONTNEED);
    madvise(p + 100 * 4096, 4096, MADV_DONTNEED);
    struct ph_track_region by_scan[8], by_entry[8];
    struct ph_track entries = {.uffd = -1, .pagemap = track.pagemap, .scan = false};
    uint64_t at = (uintptr_t)p, end = at + SIZE;
    long n = ph_track_scan(&track, PH_TRACK_PRESENT, &at, end, by_scan, 8);
    cr_assert_eq(n, 3);
    at = (uintptr_t)p;
    cr_assert_eq(ph_track_scan(&entries, PH_TRACK_PRESENT, &at, end, by_entry, 8), n);
    cr_assert_eq(at, end);
    for (long i = 0; i < n; i++) {
        cr_assert_eq(by_entry[i].start, by_scan[i].start);
        cr_assert_eq(by_entry[i].end, by_scan[i].end);
    }
    /* Few at a time. */
    long total = 0, got;
    at = (uintptr_t)p;
    while (at < end &&
           (got = ph_track_scan(&entries, PH_TRACK_PRESENT, &at, end, by_entry, 1)) > 0)
        total += (long)((by_entry[0].end - by_entry[0].start) / PH_PAGE);
    cr_assert_eq(total, PAGES - 6);
    at = (uintptr_t)p;
    cr_assert_eq(ph_track_scan(&entries, PH_TRACK_CHANGED, &at, end, by_entry, 8), PH_EKERNEL);
}

Test(track, nothing_is_populated_but_what_was_touched_or_protected)
{
    tracked();
    enum { SIZE_ = 8 << 20 };
    unsigned char *p =
        mmap(NULL, SIZE_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED);
    cr_assert_eq(madvise(p, SIZE_, MADV_NOHUGEPAGE), 0);
    cr_assert_eq(ph_track_register(&track, (uintptr_t)p, (uintptr_t)p + SIZE_), 0);
    cr_assert_eq(count(PH_TRACK_POPULATED, p, SIZE_), 0);
    cr_assert_eq(count(PH_TRACK_PROTECT, p, SIZE_), 0);
    cr_assert_eq(count(PH_TRACK_POPULATED, p, SIZE_), 0, "protecting pages makes none");
    cr_assert_eq(*(volatile unsigned char *)(p + 4096), 0);
    p[5 << 20] = 1;
    cr_assert_eq(count(PH_TRACK_POPULATED, p, SIZE_), 2, "the zero page is one");
    cr_assert_eq(count(PH_TRACK_PRESENT, p, SIZE_), 1);
    cr_assert_eq(count(PH_TRACK_WRITTEN, p, SIZE_), SIZE_ / 4096);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, 1 << 20), 0);
    cr_assert_eq(count(PH_TRACK_POPULATED, p, 1 << 20), 256, "and marks are");
}

Test(track, fork_disturbs_nothing)
{
    unsigned char *p = tracked();
    p[0]++;
    pid_t child = fork();
    if (child == 0) {
        memset(p, 9, SIZE);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 1);
    p[4096]++;
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 1);
    cr_assert_eq(p[8192], 1);
}

Test(track, unprotected_pages_count_as_changed_until_a_scan_protects_them)
{
    unsigned char *p = tracked();
    cr_assert_eq(ph_track_unprotect(&track, (uintptr_t)p + 8192, (uintptr_t)p + 8192 * 4), 0);
    cr_assert_eq(count(PH_TRACK_WRITTEN, p, SIZE), 6);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 6);
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 0);
    p[8192]++;
    cr_assert_eq(count(PH_TRACK_CHANGED, p, SIZE), 1);
}

/* Soft-dirty bits: on other kernels than this, by scripts/test-kernels. */

static unsigned char *soft_tracked(void)
{
    cr_assert_eq(ph_track_open(&track, 100), 0);
    if (!track.soft_dirty)
        cr_skip_test(
            "this kernel keeps no soft-dirty bits, or has asynchronous write-protection");
    cr_assert(ph_track_tells_changes(&track));
    unsigned char *p =
        mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED);
    memset(p, 1, SIZE);
    return p;
}

static long changed(const void *p, size_t size, size_t room_for)
{
    static struct ph_track_region room[PAGES];
    ph_track_note_begin(&track, room, room_for);
    cr_assert_eq(ph_track_note(&track, (uintptr_t)p, (uintptr_t)p + size), 0);
    cr_assert_eq(ph_track_clear(&track), 0);
    cr_assert_eq(count(PH_TRACK_UNREGISTERED, p, size), 0);
    long all = pages(PH_TRACK_WRITTEN, p, size, PAGES);
    cr_assert_eq(pages(PH_TRACK_CHANGED, p, size, 3), all, "few at a time");
    return all;
}

Test(soft_dirty, a_write_shows_once_and_reading_never)
{
    unsigned char *p = soft_tracked();
    cr_assert_eq(changed(p, SIZE, PAGES), PAGES, "a new mapping");
    read_all(p);
    cr_assert_eq(changed(p, SIZE, PAGES), 0);
    for (unsigned i = 0; i < 10; i++)
        p[i * 8192]++;
    int zero = open("/dev/zero", O_RDONLY);
    cr_assert_eq(read(zero, p + 100 * 4096, 8192), 8192);
    cr_assert_eq(changed(p, SIZE, PAGES), 12);
    cr_assert_eq(pages(PH_TRACK_CHANGED, p + 2 * 4096, 4 * 4096, PAGES), 2, "a part of it");
    cr_assert_eq(changed(p, SIZE, PAGES), 0);
    for (unsigned i = 0; i < 10; i++)
        p[i * 8192]++;
    cr_assert_geq(changed(p, SIZE, 4), 10, "too little room notes more, not less");
}

Test(soft_dirty, moved_discarded_protected_and_forked_pages_show)
{
    unsigned char *p = soft_tracked();
    changed(p, SIZE, PAGES);
    unsigned char *q = mremap(p, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
    cr_assert(q != MAP_FAILED);
    q[SIZE] = 1;
    cr_assert_geq(changed(q, 2 * SIZE, PAGES), q == p ? 1 : PAGES + 1);
    cr_assert_eq(madvise(q, 8192, MADV_DONTNEED), 0);
    q[0] = 2;
    cr_assert_eq(mprotect(q + 8192, 8192, PROT_READ), 0);
    cr_assert_eq(mprotect(q + 8192, 8192, PROT_READ | PROT_WRITE), 0);
    q[3 * 4096] = 2;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    q[5 * 4096] = 2;
    unsigned char *n = mmap(q + 2 * SIZE, SIZE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (n != MAP_FAILED) { /* joined with its neighbour */
        n[4096] = 1;
        cr_assert_geq(changed(n, SIZE, PAGES), 1);
        q[0] = q[3 * 4096] = q[5 * 4096] = 3;
    }
    cr_assert_geq(changed(q, SIZE, PAGES), 3);
}
