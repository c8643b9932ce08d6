/* SPDX-License-Identifier: MIT */
/* test_pool_write - writing goes on beside the caller, in order, and fails the epoch alone */
#include "tests/unit/pool_fixture.h"

#include <semaphore.h>

TestSuite(pool_write, .init = fixture_setup, .fini = fixture_teardown);

#define N 600 /* pages: many writes of the fixture's size, more than what wakes the thread */

static sem_t gate;
static _Atomic int closed, fails;
static _Atomic unsigned writes;
static _Atomic uint64_t told;
static uint64_t last_offset;
static bool ascending = true;

static int before_write(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg, (void)size;
    if (op != PH_IO_WRITE)
        return 0;
    writes++;
    ascending = ascending && offset > last_offset;
    last_offset = offset;
    if (closed)
        sem_wait(&gate);
    return fails;
}
static const struct ph_io_hooks hooks = {.before = before_write};

static void on_written(void *arg)
{
    told = ph_pool_written(arg);
}

static struct ph_pool *threaded(void)
{
    struct ph_pool *p;

    ph_tuning.single_threaded = false;
    sem_init(&gate, 0, 0);
    p = fixture_create_sized(256 << 20, 2);
    ph_pool_on_written(p, on_written, p);
    ph_io_hooks = &hooks;
    return p;
}

Test(pool_write, the_caller_goes_on_while_pages_are_written)
{
    struct ph_pool *p = threaded();
    uint64_t before = ph_pool_appended(p), all;

    closed = 1;
    OK(fixture_big_append(p, 1, N, 1)); /* returns, though no write does */
    cr_assert_gt(ph_pool_appended(p), before);
    cr_assert_eq(ph_pool_written(p), before);
    closed = 0;
    sem_post(&gate);
    OK(ph_pool_commit(p, NULL, 0));
    all = ph_pool_appended(p);
    cr_assert_eq(ph_pool_written(p), all);
    cr_assert_gt(writes, 2);
    for (unsigned i = 0; i < N; i += 7)
        cr_assert(fixture_holds(p, 1, PH_HEAP_BASE + i * PH_PAGE, i + 1));
    ph_pool_close(p);
    cr_assert_eq(told, all);
}

Test(pool_write, what_is_pushed_is_written_however_little)
{
    struct ph_pool *p = threaded();

    OK(fixture_big_append(p, 1, 1, 1));
    cr_assert_eq(ph_pool_written(p), 0);
    ph_pool_push(p);
    while (ph_pool_written(p) == 0) /* hangs if it is not */
        usleep(100);
    OK(ph_pool_commit(p, NULL, 0));
    ph_pool_close(p);
}

Test(pool_write, a_write_that_fails_in_the_thread_fails_the_epoch_alone)
{
    static const struct {
        int err, code;
    } how[] = {{ENOSPC, PH_EFULL}, {EIO, PH_EIO}};
    struct ph_pool *p = threaded();
    int err;

    OK(fixture_big_epoch(p, 1, N, 1));
    for (unsigned i = 0; i < 2; i++) {
        fails = how[i].err;
        err = fixture_big_append(p, 2, N, 5000);
        RETURNS(how[i].code, err ? err : ph_pool_commit(p, NULL, 0));
        cr_assert_neq(strlen(ph_pool_error_detail(p)), 0);
        fails = 0;
        ph_pool_abort(p);
        cr_assert_eq(ph_pool_written(p), ph_pool_appended(p));
    }
    cr_assert(fixture_holds(p, 1, PH_HEAP_BASE + 5 * PH_PAGE, 6));
    OK(fixture_big_epoch(p, 2, N, 5000));
    cr_assert(fixture_holds(p, 2, PH_HEAP_BASE + 5 * PH_PAGE, 5005));
    ph_pool_close(p);
}

Test(pool_write, an_epoch_given_up_in_the_middle_of_a_write_leaves_nothing_pending)
{
    struct ph_pool *p = threaded();

    for (unsigned i = 0; i < 50; i++) {
        OK(fixture_big_append(p, 1, N, i * 1000));
        ph_pool_abort(p);
        cr_assert_eq(ph_pool_written(p), ph_pool_appended(p));
    }
    OK(fixture_big_epoch(p, 1, N, 1));
    cr_assert(fixture_holds(p, 1, PH_HEAP_BASE, 1));
    ph_pool_close(p);
}

Test(pool_write, more_than_can_be_pending_is_written_in_order)
{
    enum { PAGES = 3 * PH_POOL_PENDING_MAX };
    struct ph_pool *p = fixture_create();
    char *memory = aligned_alloc(PH_PAGE, PAGES * PH_PAGE);

    ph_tuning.write_max = UINT64_C(64) << 20;
    ph_io_hooks = &hooks;
    OK(ph_pool_begin(p, 1));
    for (uint64_t i = 0; i < PAGES; i++) {
        uint64_t addr = PH_HEAP_BASE + i * PH_PAGE;
        const void *one = memory + i * PH_PAGE;
        model_fill(i + 1, (uint64_t *)(memory + i * PH_PAGE));
        OK(ph_pool_append(p, &addr, &one, 1, NULL));
        cr_assert_leq(ph_pool_appended(p) - ph_pool_written(p), PH_POOL_PENDING_MAX);
    }
    OK(ph_queue_flush(p));
    cr_assert(ascending);
    OK(ph_pool_commit(p, NULL, 0));
    free(memory);
    for (uint64_t i = 0; i < PAGES; i += 101)
        cr_assert(fixture_holds(p, 1, PH_HEAP_BASE + i * PH_PAGE, i + 1));
    ph_pool_close(p);
}
