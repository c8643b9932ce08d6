/* SPDX-License-Identifier: MIT */
/* test_pool_home - migration against a shadow, and the file's bounds */
#include "tests/unit/pool_fixture.h"

TestSuite(pool_home, .init = fixture_setup, .fini = fixture_teardown);

#define HEAP PH_HEAP_BASE

static struct ph_pool_info info_of(struct ph_pool *p)
{
    struct ph_pool_info info;

    ph_pool_get_info(p, &info);
    return info;
}

/* Pages in the tables of homes. */
static uint64_t at_home(struct ph_pool *p)
{
    struct ph_sum_pm *table = malloc(ph_table_pages(&p->super) * PH_PAGE);
    uint64_t n = 0;

    for (uint32_t i = 0; i < p->extents; i++) {
        uint32_t slot = p->by_offset[i];
        if (p->extent[slot].role != PH_EXTENT_HOME)
            continue;
        OK(ph_home_table(p, slot, table));
        for (uint32_t k = 0; k < ph_tuning.stretch_pages; k++)
            n += !ph_sum_is_zero(table[k]);
    }
    free(table);
    return n;
}

Test(pool_home, thousands_of_epochs_agree_with_the_shadow)
{
    struct ph_pool *p = fixture_create_sized(64 << 20, 3);
    struct model m = {.seed = 10};

    for (unsigned i = 0; i < 150; i++) {
        fixture_run(p, &m, 20);
        RIGHT(10, p);
        if (i % 10 == 9) {
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
            RIGHT(10, p);
        }
        cr_assert_eq(info_of(p).home_pages, at_home(p));
    }
    cr_assert_gt(info_of(p).home_epoch, 2900);
    ph_pool_close(p);
}

Test(pool_home, thread_and_writer_agree_with_the_shadow)
{
    struct ph_pool *p;
    struct model m = {.seed = 11};

    ph_tuning.single_threaded = false;
    p = fixture_create();
    for (unsigned i = 0; i < 60; i++) {
        fixture_run(p, &m, 20);
        RIGHT(11, p);
        if (i % 6 == 5) {
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
        }
    }
    cr_assert_gt(info_of(p).home_epoch, 0);
    ph_pool_close(p);
}

/* Before each write of the writer's, and each sync, a reader looks at the newest epoch. It
 * notices only now and then that the writer has gone on, as one in another process does. */
static struct {
    struct ph_pool *pool;
    unsigned long looks;
    char wrong[300];
} reader;

static void look(void)
{
    struct ph_epoch_info newest;
    struct ph_view *view;
    const char *wrong;

    if (!reader.pool || reader.wrong[0] || ph_pool_epochs(reader.pool, &newest, 1) == 0)
        return;
    int err = ph_pool_view(reader.pool, newest.number, &view);
    if (err) {
        snprintf(reader.wrong, sizeof(reader.wrong), "%s", ph_error_name(err));
        return;
    }
    struct model then;
    model_at(&then, 15, newest.number);
    wrong = model_compare(&then, reader.pool, view);
    if (wrong)
        snprintf(reader.wrong, sizeof(reader.wrong), "epoch %llu: %s",
                 (unsigned long long)newest.number, wrong);
    ph_view_free(view);
    reader.looks++;
}

static int look_before(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset, (void)size;
    if (op == PH_IO_WRITE || op == PH_IO_SYNC)
        look();
    return 0;
}

Test(pool_home, reader_is_right_at_every_moment)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 15};
    const struct ph_io_hooks hooks = {.before = look_before};

    fixture_run(p, &m, 1);
    reader.pool = fixture_open(PH_POOL_READ);
    ph_io_hooks = &hooks;
    for (unsigned i = 0; i < 120 && !reader.wrong[0]; i++) {
        fixture_run(p, &m, 1);
        fixture_scribble(p); /* what is free too early is overwritten */
    }
    ph_io_hooks = NULL;
    cr_assert(!reader.wrong[0], "%s", reader.wrong);
    cr_assert_gt(reader.looks, 1000);
    ph_pool_close(reader.pool);
    ph_pool_close(p);
}

Test(pool_home, at_least_keep_epochs_stay)
{
    for (uint32_t keep = 2; keep < 12; keep += 3) {
        struct ph_pool *p = fixture_create_sized(64 << 20, keep);
        struct model m = {.seed = 12};
        for (unsigned i = 0; i < 100; i++) {
            fixture_run(p, &m, 1);
            cr_assert_geq(ph_pool_epochs(p, NULL, 0), i + 1 < keep ? i + 1 : keep);
        }
        cr_assert_gt(info_of(p).home_epoch, 0);
        cr_assert_leq(ph_pool_epochs(p, NULL, 0), keep + ph_tuning.trigger_epochs);
        RIGHT(12, p);
        ph_pool_close(p);
        unlink(fixture_path);
    }
}

Test(pool_home, file_does_not_grow_without_bound)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 13};
    uint64_t early;
    uint32_t extents;

    fixture_run(p, &m, 1000);
    early = info_of(p).allocated;
    extents = p->extents;
    fixture_run(p, &m, 1600);
    /* 100 MB have been appended since. */
    cr_assert_leq(p->extents, extents + 3);
    cr_assert_leq(info_of(p).allocated, early + (2 << 20));
    ph_pool_close(p);
}

Test(pool_home, log_that_is_not_needed_any_more_takes_no_space_on_the_disk)
{
    struct ph_pool *p = fixture_create_sized(256 << 20, 2);
    const size_t n = 4096; /* 16 MiB, trigger 1 MiB */
    struct ph_view *view;
    uint64_t number = 1, whole;

    OK(fixture_big_epoch(p, number, n, 100000));
    OK(fixture_big_epoch(p, ++number, n, 200000));
    OK(ph_pool_view(p, number, &view));
    whole = info_of(p).allocated;
    for (unsigned i = 0; i < 20; i++)
        fixture_one_page(p, ++number, HEAP + i * PH_PAGE, i + 1, false);
    cr_assert_geq(info_of(p).allocated, whole, "somebody may read what a view reaches");
    ph_view_free(view);
    for (unsigned i = 0; i < 20; i++)
        fixture_one_page(p, ++number, HEAP + i * PH_PAGE, i + 100, false);
    cr_assert_leq(info_of(p).allocated, whole * 3 / 4);
    for (size_t i = 0; i < n; i += 97)
        cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, i < 20 ? i + 100 : 200000 + i));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    OK(fixture_big_epoch(p, ++number, n, 300000)); /* into the holes */
    for (size_t i = 0; i < n; i += 97)
        cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, 300000 + i));
    ph_pool_close(p);
}

/* A thread that migrates so slowly that the writer has to wait for it. */
static int slowly(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    const struct ph_pool *p = arg;

    (void)offset, (void)size;
    if (op == PH_IO_READ && pthread_equal(pthread_self(), p->thread))
        usleep(2000);
    return 0;
}

Test(pool_home, log_exceeds_its_trigger_by_a_quarter_or_an_epoch_and_the_newest)
{
    const uint64_t most = ph_tuning.trigger_bytes / 4 * 5;
    const size_t n = 24; /* pages in an epoch */
    struct ph_io_hooks hooks = {.before = slowly};
    struct ph_pool *p;

    ph_tuning.single_threaded = false;
    ph_tuning.trigger_epochs = 1000;
    p = fixture_create_sized(256 << 20, 2);
    hooks.arg = p;
    ph_io_hooks = &hooks;
    for (uint64_t number = 1; number <= 60; number++) {
        uint64_t bytes = 0, largest = 0;
        OK(fixture_big_epoch(p, number, n, number * 1000));
        pthread_mutex_lock(&p->lock);
        for (size_t i = 0; i + 2 < p->epochs; i++) {
            bytes += p->epoch[i].info.bytes;
            if (p->epoch[i].info.bytes > largest)
                largest = p->epoch[i].info.bytes;
        }
        pthread_mutex_unlock(&p->lock);
        cr_assert_leq(bytes, most + largest);
    }
    cr_assert_gt(info_of(p).home_epoch, 0);
    ph_pool_close(p);
    ph_io_hooks = NULL;
}

/* The thread that migrates waits at the first such operation until the pool is to be closed. */
static struct {
    struct ph_pool *pool;
    enum ph_io_op op;
    _Atomic unsigned n; /* of these operations, that one included */
} closing;

static int wait_for_close(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)offset;
    if (op != closing.op || size <= PH_PAGE ||
        !pthread_equal(pthread_self(), closing.pool->thread))
        return 0;
    closing.n++;
    while (!closing.pool->stop)
        usleep(100);
    return 0;
}

/* An epoch of @p n pages, small ones, and, if @p more, a migration and small ones again; then
 * close while the thread is at an @p op. @return the newest. */
static uint64_t close_at(enum ph_io_op op, size_t n, bool more)
{
    const struct ph_io_hooks hooks = {.before = wait_for_close};
    uint64_t number = 1;
    struct ph_pool *p;

    ph_tuning.single_threaded = false;
    ph_tuning.trigger_bytes = UINT64_C(1) << 40; /* when the test says so */
    p = closing.pool = fixture_create_sized(256 << 20, 2);
    closing.op = op;
    OK(fixture_big_epoch(p, number, n, 100000));
    while (number++ < 3)
        fixture_one_page(p, number, HEAP + n * PH_PAGE, number, false);
    pthread_mutex_lock(&p->lock);
    if (more)
        OK(ph_home_force(p, true));
    pthread_mutex_unlock(&p->lock);
    for (; more && number <= 5; number++)
        fixture_one_page(p, number, HEAP + n * PH_PAGE, number, false);
    ph_io_hooks = &hooks;
    pthread_mutex_lock(&p->lock);
    p->migrate_now = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    while (!closing.n)
        usleep(100);
    ph_pool_close(p);
    ph_io_hooks = NULL;
    ph_tuning.single_threaded = true;
    ph_tuning.trigger_bytes = 1;
    return number - 1;
}

Test(pool_home, closing_does_not_wait_for_migration)
{
    const size_t n = 4096; /* 64 stretches */
    uint64_t number = close_at(PH_IO_WRITE, n, false);
    struct ph_pool *p = fixture_open(PH_POOL_WRITE);

    cr_assert_eq(closing.n, 1, "of the pages of one stretch");
    cr_assert_eq(info_of(p).home_epoch, 0);
    for (size_t i = 0; i < n; i += 97)
        cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, 100000 + i));
    fixture_one_page(p, ++number, HEAP, 5, false);
    cr_assert_eq(info_of(p).home_epoch, 1, "now it is done");
    cr_assert_eq(info_of(p).home_pages, n);
    for (size_t i = 97; i < n; i += 97)
        cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, 100000 + i));
    ph_pool_close(p);
}

Test(pool_home, closing_gives_nothing_more_back_to_the_disk)
{
    const size_t n = 4096;
    uint64_t number = close_at(PH_IO_DISCARD, n, true);
    struct ph_pool *p = fixture_open(PH_POOL_WRITE);

    cr_assert_eq(closing.n, 1);
    for (size_t i = 0; i < n; i += 97)
        cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, 100000 + i));
    ph_pool_close(p);
}

Test(pool_home, emptied_stretches_are_given_up_and_reused)
{
    struct ph_pool *p = fixture_create();
    uint64_t stretch = ph_tuning.stretch_pages * PH_PAGE, number = 0;

    /* The program moves on through the address space; only one page stays. */
    for (uint64_t i = 0; i < 300; i++) {
        fixture_one_page(p, ++number, HEAP + i * stretch, i + 1, true);
        for (unsigned k = 0; k < 3; k++)
            fixture_one_page(p, ++number, HEAP + i * stretch + PH_PAGE, i + k + 7, false);
    }
    cr_assert(fixture_holds(p, number, HEAP + 299 * stretch, 300));
    cr_assert(fixture_holds(p, number, HEAP + 298 * stretch, 0));
    cr_assert_leq(p->extents, 16);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert(fixture_holds(p, number, HEAP + 299 * stretch, 300));
    ph_pool_close(p);
}

/* Of each stretch only @p left pages stay. */
static void lose_all_but(struct ph_pool *p, uint64_t number, size_t n, unsigned left)
{
    struct ph_page_span span[64];
    size_t spans = 0;

    for (size_t i = 0; i < n; i += ph_tuning.stretch_pages)
        span[spans++] = (struct ph_page_span){HEAP + i * PH_PAGE, HEAP + (i + left) * PH_PAGE};
    OK(ph_pool_begin(p, number));
    OK(ph_pool_set_present(p, span, spans));
    OK(ph_pool_commit(p, NULL, 0));
}

Test(pool_home, pages_that_do_not_come_again_take_no_space_at_home)
{
    const size_t n = 2048; /* 8 MiB in 32 stretches */
    struct ph_pool *p;
    uint64_t number, lost, whole;

    for (unsigned reopen = 0; reopen < 2; reopen++) {
        p = fixture_create_sized(256 << 20, 2);
        OK(fixture_big_epoch(p, number = 1, n, 100000));
        for (unsigned i = 0; i < 30; i++)
            fixture_one_page(p, ++number, HEAP, i + 1, false);
        cr_assert_geq(at_home(p), n - 1);
        whole = info_of(p).allocated;
        lose_all_but(p, lost = ++number, n, 8);
        if (reopen) { /* as after a kill: what is at home is all that tells */
            while (info_of(p).home_epoch < lost) {
                number++;
                fixture_one_page(p, number, HEAP, number, false);
            }
            ph_pool_close(p);
            p = fixture_open(PH_POOL_WRITE);
        }
        for (unsigned i = 0; i < 40; i++)
            fixture_one_page(p, ++number, HEAP, i + 1, false);
        cr_assert_leq(info_of(p).allocated, whole - n * PH_PAGE * 3 / 4);
        for (size_t i = 1; i < n; i += 5)
            cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE,
                                    i % ph_tuning.stretch_pages < 8 ? 100000 + i : 0));
        OK(fixture_big_epoch(p, ++number, n, 200000)); /* into the holes */
        for (unsigned i = 0; i < 20; i++)
            fixture_one_page(p, ++number, HEAP, i + 1, false);
        for (size_t i = 1; i < n; i += 5)
            cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, 200000 + i));
        ph_pool_close(p);
        unlink(fixture_path);
    }
}

Test(pool_home, stretches_with_few_pages_take_little_space)
{
    struct ph_pool *p;
    uint64_t number = 0, before = 0;

    ph_tuning.stretch_pages = 4096; /* tables of 16 pages */
    p = fixture_create_sized(1 << 30, 2);
    for (uint64_t i = 0; i < 30; i++) {
        uint64_t addr = HEAP + (i % 20) * ph_tuning.stretch_pages * PH_PAGE;
        if (i == 1)
            before = info_of(p).allocated;
        fixture_one_page(p, ++number, addr + 2000 * PH_PAGE, i + 1, false);
    }
    cr_assert_geq(ph_extent_count(p, PH_EXTENT_HOME), 16);
    cr_assert_leq(info_of(p).allocated, before + UINT64_C(20) * 10 * PH_PAGE);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    for (uint64_t i = 10; i < 30; i++) {
        uint64_t addr = HEAP + (i % 20) * ph_tuning.stretch_pages * PH_PAGE;
        cr_assert(fixture_holds(p, number, addr + 2000 * PH_PAGE, i + 1));
        cr_assert(fixture_holds(p, number, addr + 1000 * PH_PAGE, 0));
    }
    ph_pool_close(p);
}

Test(pool_home, epoch_larger_than_the_log_trigger_works)
{
    struct ph_pool *p = fixture_create_sized(256 << 20, 2);
    const size_t n = 4096; /* 16 MiB, trigger 1 MiB */

    for (uint64_t e = 1; e <= 8; e++)
        OK(fixture_big_epoch(p, e, n, e * 100000));
    for (uint64_t e = 7; e <= 8; e++)
        for (size_t i = 0; i < n; i += 97)
            cr_assert(fixture_holds(p, e, HEAP + i * PH_PAGE, e * 100000 + i));
    ph_pool_close(p);
}

static size_t count_heirs(const struct ph_pool *p)
{
    size_t n = 0;

    for (uint32_t i = 0; i < p->extents; i++)
        n += p->extent[p->by_offset[i]].heir;
    return n;
}

Test(pool_home, first_epoch_is_written_once)
{
    struct ph_pool *p;
    const size_t n = 4096; /* 16 MiB */
    uint64_t number = 1;

    ph_tuning.heir_run = 32;
    p = fixture_create_sized(256 << 20, 2);
    OK(fixture_big_append(p, number, n, 7000)); /* given up: nothing of it stays */
    ph_pool_abort(p);
    cr_assert_eq(count_heirs(p) + ph_extent_count(p, PH_EXTENT_TAKEN), 0);
    OK(fixture_big_epoch(p, number, n, 1000));
    cr_assert_geq(count_heirs(p), n / ph_tuning.stretch_pages);
    cr_assert_leq(info_of(p).log_bytes, 1 << 20, "index and header");
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE); /* finds them again */
    cr_assert_geq(count_heirs(p), n / ph_tuning.stretch_pages);
    for (size_t i = 0; i < n; i += 97)
        cr_assert(fixture_holds(p, 1, HEAP + i * PH_PAGE, 1000 + i));
    while (info_of(p).home_epoch < 1) {
        number++;
        fixture_one_page(p, number, HEAP + number * PH_PAGE, number, false);
    }
    cr_assert_leq(info_of(p).pages_migrated, number, "they were at home");
    cr_assert_leq(info_of(p).allocated, n * PH_PAGE * 5 / 4 + (8 << 20));
    for (size_t i = number + 1; i < n; i += 97)
        cr_assert(fixture_holds(p, number, HEAP + i * PH_PAGE, 1000 + i));
    cr_assert(fixture_holds(p, number, HEAP + 2 * PH_PAGE, 2));
    ph_pool_close(p);
}

/* Append @p n pages of which those below @p changed have the epoch's values, commit. */
static void dense_epoch(struct ph_pool *p, uint64_t number, size_t n, size_t changed)
{
    struct ph_page_span span = {HEAP, HEAP + n * PH_PAGE};

    OK(fixture_big_append(p, number, changed, number * 100000));
    OK(ph_pool_set_present(p, &span, 1));
    OK(ph_pool_commit(p, NULL, 0));
}

/* What changes nearly whole in each epoch is written once, and what does not change stays. */
Test(pool_home, dense_epochs_are_written_once)
{
    struct ph_pool *p;
    const size_t n = 1024, dense = 1000; /* the last stretch has 40 of 64 */
    uint64_t number = 1;

    ph_tuning.heir_run = 32;
    p = fixture_create_sized(256 << 20, 2);
    dense_epoch(p, number++, n, n);
    while (number <= 3)
        dense_epoch(p, number++, n, dense);
    while (number <= 40) {
        uint64_t before = info_of(p).pages_migrated;
        dense_epoch(p, number, n, dense);
        cr_assert_leq(info_of(p).pages_migrated - before, 64, "only the last stretch");
        cr_assert_geq(count_heirs(p), 2 * (n / 64 - 1));
        cr_assert(fixture_holds(p, number, HEAP + (dense - 1) * PH_PAGE,
                                number * 100000 + dense - 1));
        cr_assert(fixture_holds(p, number, HEAP + (n - 1) * PH_PAGE, 100000 + n - 1));
        number++;
    }
    cr_assert_geq(info_of(p).home_epoch, number - 4);
    cr_assert_leq(p->extents, 5 * (n / 64) + 4);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert_geq(count_heirs(p), 2 * (n / 64 - 1), "found again");
    for (size_t i = 0; i < dense; i += 13)
        cr_assert(fixture_holds(p, number - 1, HEAP + i * PH_PAGE, (number - 1) * 100000 + i));
    fixture_one_page(p, number, HEAP, 5, false); /* and goes on, in small epochs */
    number++;
    for (unsigned i = 0; i < 20; i++)
        fixture_one_page(p, number++, HEAP + i * PH_PAGE, 5, false);
    for (size_t i = 20; i < dense; i += 13)
        cr_assert(fixture_holds(p, number - 1, HEAP + i * PH_PAGE, 40 * 100000 + i));
    cr_assert_eq(count_heirs(p), 0);
    ph_pool_close(p);
}

Test(pool_home, dense_epochs_wait_until_the_one_before_is_home)
{
    struct ph_io_hooks hooks = {.before = slowly};
    struct ph_pool *p;

    ph_tuning.single_threaded = false;
    ph_tuning.heir_run = 16;
    ph_tuning.trigger_bytes = 64 * PH_PAGE;
    p = fixture_create_sized(256 << 20, 2);
    hooks.arg = p;
    ph_io_hooks = &hooks;
    for (uint64_t number = 1; number <= 20; number++) {
        dense_epoch(p, number, 1024, 1024);
        pthread_mutex_lock(&p->lock);
        size_t epochs = p->epochs;
        pthread_mutex_unlock(&p->lock);
        cr_assert_leq(epochs, 3, "the kept ones, and the one that the newest has replaced");
    }
    cr_assert(fixture_holds(p, 20, HEAP + 1000 * PH_PAGE, 2001000));
    ph_pool_close(p);
    ph_io_hooks = NULL;
}

Test(pool_home, log_fills_the_segments_that_it_has_freed)
{
    struct ph_pool *p = fixture_create_sized(256 << 20, 2);
    uint64_t segment = (uint64_t)ph_segment_pages(&p->super) * PH_PAGE, number = 0;

    /* Each epoch takes 17 pages and its index, and seven at most are kept beyond two. */
    while (number++ < 200)
        OK(fixture_big_epoch(p, number, 17, number * 1000));
    number--;
    uint32_t used = 0;
    for (uint32_t i = 0; i < p->extents; i++)
        if (p->extent[i].role == PH_EXTENT_LOG)
            used += (uint32_t)__builtin_popcount(p->extent[i].used);
    cr_assert_leq(used * segment, info_of(p).log_bytes + 2 * segment);
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE); /* finds the same */
    uint32_t again = 0;
    for (uint32_t i = 0; i < p->extents; i++)
        if (p->extent[i].role == PH_EXTENT_LOG)
            again += (uint32_t)__builtin_popcount(p->extent[i].used);
    cr_assert_leq(again, used);
    cr_assert(fixture_holds(p, number, HEAP, number * 1000));
    ph_pool_close(p);
}

static void full_pool(bool in_line)
{
    struct ph_pool *p;
    struct ph_pool_info info;
    uint64_t e = 0;
    size_t n = 256;
    int err = 0;

    ph_tuning.single_threaded = in_line;
    p = fixture_create_sized(48 << 20, 2);
    /* A program that grows until it does not fit any more. */
    while (!err && n < 20000) {
        e++;
        err = fixture_big_epoch(p, e, n, e * 1000000);
        n += 256;
    }
    RETURNS(PH_EPOOLSIZE, err);
    ph_pool_abort(p);
    info = info_of(p);
    cr_assert_eq(info.newest, e - 1);
    cr_assert(fixture_holds(p, e - 1, HEAP, (e - 1) * 1000000));
    OK(fixture_big_epoch(p, e, 16, 5)); /* a small epoch still has room */
    cr_assert(fixture_holds(p, e, HEAP, 5));
    cr_assert(fixture_holds(p, e, HEAP + 16 * PH_PAGE, (e - 1) * 1000000 + 16));
    ph_pool_close(p);
    p = fixture_open(PH_POOL_WRITE);
    cr_assert(fixture_holds(p, e, HEAP, 5));
    ph_pool_close(p);
}

Test(pool_home, pool_that_is_too_small_says_so_and_keeps_the_last_epoch)
{
    full_pool(true);
}

Test(pool_home, pool_that_is_too_small_says_so_with_the_thread_too)
{
    full_pool(false);
}

Test(pool_home, held_views_stay_right_while_epochs_go_on)
{
    struct ph_pool *p = fixture_create();
    struct model m = {.seed = 14}, then;
    struct ph_view *v;
    const char *wrong;

    fixture_run(p, &m, 30);
    then = m;
    OK(ph_pool_view(p, m.epoch, &v));
    fixture_run(p, &m, 40);
    wrong = model_compare(&then, p, v);
    cr_assert_null(wrong, "%s", wrong);
    OK(ph_view_verify(v, NULL, NULL, NULL));
    cr_assert_eq(info_of(p).newest, m.epoch);
    ph_view_free(v);
    fixture_run(p, &m, 10);
    cr_assert_gt(info_of(p).home_epoch, then.epoch, "migration goes on when the view is freed");
    RIGHT(14, p);
    ph_pool_close(p);
}

Test(pool_home, damage_in_the_log_is_still_seen_after_migration)
{
    struct ph_pool *p = fixture_create();
    struct ph_view *v;
    const struct ph_run *run;
    uint64_t number = 1, bad = 0;
    size_t n;

    fixture_one_page(p, number, HEAP + 3 * PH_PAGE, 1, false);
    OK(ph_pool_view(p, 1, &v));
    run = ph_view_runs(v, &n);
    cr_assert_eq(pwrite(ph_pool_fd(p), "x", 1, (off_t)run[0].offset + 9), 1);
    ph_view_free(v);
    while (info_of(p).home_epoch < 1) {
        number++;
        fixture_one_page(p, number, HEAP, number, false);
    }
    OK(ph_pool_view(p, number, &v));
    RETURNS(PH_ECORRUPT, ph_view_verify(v, NULL, NULL, &bad));
    cr_assert_eq(bad, HEAP + 3 * PH_PAGE);
    ph_view_free(v);
    ph_pool_close(p);
}

Test(pool_home, merging_indexes_prefers_the_newest)
{
    enum { INDEXES = 13, PAGES = 500 };
    struct ph_index index[INDEXES], merged;
    uint64_t expect[PAGES] = {0};
    size_t n = 0;

    for (unsigned k = 0; k < INDEXES; k++) {
        index[k] = (struct ph_index){malloc(PAGES * sizeof(struct ph_entry_pm)), 0};
        for (uint64_t i = 0; i < PAGES; i++)
            if (model_mix(k * 1000 + i) % 5 == 0) {
                expect[i] = (k + 1) * PH_PAGE;
                index[k].entry[index[k].n++] =
                    (struct ph_entry_pm){.addr = i * PH_PAGE, .offset = expect[i]};
            }
    }
    OK(ph_index_merge(index, INDEXES, &merged));
    for (uint64_t i = 0; i < PAGES; i++)
        if (expect[i]) {
            cr_assert_eq(merged.entry[n].addr, i * PH_PAGE);
            cr_assert_eq(merged.entry[n].offset, expect[i]);
            n++;
        }
    cr_assert_eq(merged.n, n);
    ph_index_free(&merged);
}
