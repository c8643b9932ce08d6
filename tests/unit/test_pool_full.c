/* SPDX-License-Identifier: MIT */
/* test_pool_full - full and failing disks: the last epoch stays, the next one succeeds */
#include "tests/unit/pool_fixture.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>

TestSuite(pool_full, .init = fixture_setup, .fini = fixture_teardown);

static struct {
    long countdown; /* operations of that kind until the first failure; -1: never */
    long failures;  /* how many fail then */
    enum ph_io_op op;
    int err;
    unsigned long seen;
} fault;

static int inject(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset, (void)size;
    if (op != fault.op)
        return 0;
    fault.seen++;
    if (fault.countdown > 0)
        fault.countdown--;
    else if (fault.countdown == 0 && fault.failures-- > 0)
        return fault.err;
    return 0;
}

static const struct ph_io_hooks hooks = {.before = inject};

static void inject_none(void)
{
    fault.countdown = -1;
}

/* Every write of an epoch with migration fails in turn, for lack of space. */
static void no_space_at_every(enum ph_io_op op, long failures)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 30};
    unsigned failed = 0;

    ph_io_hooks = &hooks;
    inject_none();
    fixture_run(p, &m, 10);
    for (long at = 0; at < 160; at++) {
        struct model before = m;
        int err = 0;
        fault.op = op;
        fault.err = ENOSPC;
        fault.countdown = at % 80;
        fault.failures = failures;
        for (unsigned i = 0; i < 12 && !err; i++) {
            before = m;
            model_step(&m);
            err = model_commit(&m, p);
        }
        if (err && !p->broken) {
            RETURNS(PH_EFULL, err);
            failed++;
            RETURNS(PH_EFULL, ph_pool_commit(p, NULL, 0)); /* only aborting helps */
            ph_pool_abort(p);
            m = before;
        }
        inject_none();   /* there is space again */
        if (p->broken) { /* the root record itself: nobody knows which one is there */
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
            model_at(&m, 30, p->epoch[p->epochs - 1].info.number);
            cr_assert(m.epoch == before.epoch || m.epoch == before.epoch + 1);
        }
        cr_assert_eq(p->epoch[p->epochs - 1].info.number, m.epoch);
        RIGHT(30, p);
        fixture_run(p, &m, 1);
        RIGHT(30, p);
        if (at % 16 == 15) {
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
            RIGHT(30, p);
        }
    }
    if (op == PH_IO_WRITE)
        cr_assert_gt(failed, 10);
    ph_pool_close(p);
}

Test(pool_full, one_write_fails)
{
    no_space_at_every(PH_IO_WRITE, 1);
}

Test(pool_full, all_writes_fail_for_a_while)
{
    no_space_at_every(PH_IO_WRITE, 1000000);
}

Test(pool_full, no_space_for_another_extent)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 31};
    unsigned failed = 0;

    ph_io_hooks = &hooks;
    for (unsigned i = 0; i < 200; i++) {
        struct model before = m;
        fault.op = PH_IO_RESERVE;
        fault.err = ENOSPC;
        fault.countdown = i % 2 ? -1 : 0;
        fault.failures = 1000000;
        model_step(&m);
        int err = model_commit(&m, p);
        if (err) {
            RETURNS(PH_EFULL, err);
            ph_pool_abort(p);
            m = before;
            failed++;
        }
        RIGHT(31, p);
    }
    cr_assert_gt(failed, 0);
    inject_none();
    ph_pool_close(p);
}

static uint64_t disk_room;

static int little_room(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset;
    return op == PH_IO_RESERVE && size > disk_room ? ENOSPC : 0;
}

/* S5: an epoch of a page is written where there is no room for a segment, and not where there
 * is none to bring the log home. */
Test(pool_full, a_small_epoch_needs_no_room_for_a_segment)
{
    static const struct ph_io_hooks counting = {.before = little_room};
    struct ph_pool *p = fixture_create();
    uint64_t log = 0;

    for (uint64_t n = 1; n <= 3; n++)
        fixture_one_page(p, n, PH_HEAP_BASE, n, false);
    for (size_t i = 0; i < p->epochs; i++)
        log += p->epoch[i].info.bytes;
    cr_assert_gt(log, 0);
    p->end.slot = PH_NO_SLOT; /* a segment is due */
    ph_io_hooks = &counting;
    disk_room = log + (ph_segment_pages(&p->super) - 1) * PH_PAGE;
    fixture_one_page(p, 4, PH_HEAP_BASE, 4, false);
    cr_assert(fixture_holds(p, 4, PH_HEAP_BASE, 4));
    disk_room = 0;
    RETURNS(PH_EFULL, fixture_big_epoch(p, 5, 1, 5));
    ph_pool_abort(p);
    ph_io_hooks = NULL;
    fixture_one_page(p, 6, PH_HEAP_BASE, 6, false);
    cr_assert(fixture_holds(p, 6, PH_HEAP_BASE, 6));
    ph_pool_close(p);
}

/* S5: a disk that is full of a log that the program needs no more. Nothing of it goes home
 * before an epoch without it is the oldest that is kept. */
Test(pool_full, an_epoch_that_forgets_what_fills_the_disk_is_let_in)
{
    static const struct ph_io_hooks counting = {.before = little_room};
    static const size_t pages = 3000;
    const uint64_t last = PH_HEAP_BASE + (pages - 1) * PH_PAGE;
    struct ph_pool *p = fixture_create_sized(64 << 20, 2);
    struct ph_page_span all = {PH_HEAP_BASE, last + PH_PAGE};
    uint64_t n = 1;

    OK(fixture_big_append(p, n, pages, 1));
    OK(ph_pool_set_present(p, &all, 1));
    OK(ph_pool_commit(p, NULL, 0));
    fixture_one_page(p, n = 2, PH_HEAP_BASE, 2, false);
    ph_io_hooks = &counting;
    disk_room = 1500 * PH_PAGE; /* less than the first epoch took, and enough for an extent */
    while (++n < 6) {           /* these need all that there is */
        RETURNS(PH_EFULL, fixture_big_epoch(p, n, 3, n));
        ph_pool_abort(p);
        cr_assert(fixture_holds(p, 2, last, pages));
    }
    for (; n < 30; n++) { /* and these forget all but a page */
        fixture_one_page(p, n, PH_HEAP_BASE, n, true);
        cr_assert(fixture_holds(p, n, PH_HEAP_BASE, n));
        cr_assert(fixture_holds(p, n, last, 0));
        if (n > 6)
            continue;
        cr_assert_eq(p->root.oldest, 2);
        cr_assert(fixture_holds(p, 2, last, pages));
        RETURNS(PH_EFULL, ph_home_migrate(p));
        cr_assert_eq(ph_extent_count(p, PH_EXTENT_HOME), 0);
    }
    cr_assert_gt(p->root.home_epoch, 6, "the log went home");
    ph_io_hooks = NULL;
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert(fixture_holds(p, n - 1, PH_HEAP_BASE, n - 1));
    ph_pool_close(p);
}

Test(pool_full, failing_sync_stops_epochs_until_reopened)
{
    for (long at = 0; at < 12; at++) {
        struct ph_pool *p = fixture_create();
        struct model m = {.seed = 32}, before = m;
        int err = 0;
        inject_none();
        ph_io_hooks = &hooks;
        fixture_run(p, &m, 8);
        fault.op = PH_IO_SYNC;
        fault.err = EIO;
        fault.failures = 1;
        fault.countdown = at;
        while (!err) {
            before = m;
            model_step(&m);
            err = model_commit(&m, p);
        }
        RETURNS(PH_EIO, err);
        ph_pool_abort(p);
        RETURNS(PH_EIO, ph_pool_begin(p, m.epoch + 1));
        cr_assert_neq(strlen(ph_pool_error_detail(p)), 0);
        ph_pool_close(p);
        p = fixture_open(PH_POOL_WRITE);
        model_at(&m, 32, p->epoch[p->epochs - 1].info.number);
        cr_assert(m.epoch == before.epoch || m.epoch == before.epoch + 1);
        RIGHT(32, p);
        fixture_run(p, &m, 10);
        RIGHT(32, p);
        ph_pool_close(p);
        unlink(fixture_path);
    }
}

Test(pool_full, read_errors_are_reported)
{
    struct ph_pool *p = fixture_create(), *q;
    struct model m = {.seed = 33};
    struct ph_view *v;

    fixture_run(p, &m, 10);
    ph_pool_close(p);
    ph_io_hooks = &hooks;
    fault.op = PH_IO_READ;
    fault.err = EIO;
    inject_none();
    fault.seen = 0;
    p = fixture_open(PH_POOL_READ);
    unsigned long reads = fault.seen;
    for (unsigned long at = 0; at + 2 < reads;
         at++) { /* the last two, of the roots, are tried again */
        fault.countdown = (long)at;
        fault.failures = 1;
        fixture_err = ph_pool_open(&q, fixture_path, PH_POOL_READ);
        cr_assert_eq(fixture_err, PH_EIO, "read %lu of %lu: %s", at, reads,
                     ph_error_name(fixture_err));
    }
    inject_none();
    OK(ph_pool_view(p, m.epoch, &v));
    fault.countdown = 0;
    fault.failures = 1;
    RETURNS(PH_EIO, ph_view_verify(v, NULL, NULL, NULL));
    inject_none();
    OK(ph_view_verify(v, NULL, NULL, NULL));
    ph_view_free(v);
    ph_pool_close(p);
}

Test(pool_full, create_on_a_full_disk_leaves_no_file)
{
    struct ph_pool *p;
    struct ph_pool_options opt = {.size = 64 << 20};
    int err;
    long at = 0;

    ph_io_hooks = &hooks;
    for (enum ph_io_op op = PH_IO_WRITE; op <= PH_IO_TRUNCATE; op++) {
        if (op == PH_IO_SYNC)
            continue;
        for (at = 0; at < 100; at++) {
            fault.op = op;
            fault.err = ENOSPC;
            fault.countdown = at;
            fault.failures = 1;
            err = ph_pool_create(&p, fixture_path, &opt);
            if (!err)
                break;
            cr_assert(err == PH_EFULL || err == PH_EIO, "%s", ph_error_name(err));
            cr_assert_neq(access(fixture_path, F_OK), 0);
        }
        cr_assert(at > 0 && at < 100);
        ph_pool_close(p);
        unlink(fixture_path);
    }
}

/* A real file system that is really full. Mounting takes root; without, the injected errors
 * above are all there is. */
Test(pool_full, really_full_file_system)
{
    struct ph_pool *p;
    struct model m = {.seed = 34}, before;
    char filler[300];
    static char block[1 << 16];
    unsigned failed = 0;
    int err = 0;

    if (mount("none", fixture_dir, "tmpfs", 0, "size=24m,mode=0700")) {
        cr_assert(errno == EPERM || errno == EACCES, "mount: %s", strerror(errno));
        cr_log_info("no right to mount a file system: only injected errors are tested");
        return;
    }
    p = fixture_create();
    snprintf(filler, sizeof(filler), "%s/filler", fixture_dir);
    fixture_run(p, &m, 3);
    for (unsigned round = 0; round < 6; round++) {
        int fd = open(filler, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        memset(block, 1, sizeof(block));
        while (write(fd, block, sizeof(block)) > 0)
            ;
        while (write(fd, block, 512) > 0)
            ;
        close(fd);
        for (unsigned i = 0; i < 60; i++) { /* some fit into blocks that there are */
            before = m;
            model_step(&m);
            err = model_commit(&m, p);
            if (err) {
                RETURNS(PH_EFULL, err);
                ph_pool_abort(p);
                m = before;
                failed++;
                break;
            }
        }
        RIGHT(34, p);
        unlink(filler);
        fixture_run(p, &m, 3);
        RIGHT(34, p);
    }
    cr_assert_gt(failed, 0);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    RIGHT(34, p);
    ph_pool_close(p);
    unlink(fixture_path);
    cr_assert_eq(umount2(fixture_dir, MNT_DETACH), 0);
}

/* ---- stores into a hole of a full disk ------------------------------------------------ */

static int store_beyond_the_end(void *arg)
{
    *(volatile char *)arg = 1;
    return 7;
}

Test(pool_full, bus_errors_inside_libpmemobj_become_errors)
{
    struct ph_io io = {open(fixture_path, O_RDWR | O_CREAT, 0600), -1};
    char *map = mmap(NULL, PH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, io.fd, 0);

    cr_assert_neq(map, MAP_FAILED);
    RETURNS(PH_EIO, ph_guard(&io, store_beyond_the_end, map)); /* the disk is not full */
    ph_io_hooks = &hooks;
    fault.op = PH_IO_RESERVE;
    fault.err = ENOSPC;
    fault.countdown = 0;
    fault.failures = 1;
    RETURNS(PH_EFULL, ph_guard(&io, store_beyond_the_end, map));
    inject_none();
    cr_assert_eq(ftruncate(io.fd, (off_t)PH_PAGE), 0);
    RETURNS(7, ph_guard(&io, store_beyond_the_end, map));
    munmap(map, PH_PAGE);
    ph_io_close(&io);
}

Test(pool_full, bus_errors_elsewhere_still_kill, .signal = SIGBUS)
{
    struct ph_io io = {open(fixture_path, O_RDWR | O_CREAT, 0600), -1};
    char *map = mmap(NULL, PH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, io.fd, 0);

    RETURNS(PH_EIO, ph_guard(&io, store_beyond_the_end, map));
    unlink(fixture_path);
    rmdir(fixture_dir);
    store_beyond_the_end(map);
}
