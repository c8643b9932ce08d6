/* SPDX-License-Identifier: MIT */
/* The keeper's drainer, with this test as the program. */
#include "allocator/io.h"
#include "allocator/keeper.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ph_keeper keeper;
static struct ph_stage stage;
static char path[64];
static pid_t child;
static int go[2];
static _Atomic int disk_full;
enum { WHEN_STUCK = 2 };

static bool alive(void)
{
    return true;
}

/* The program waits for room in the ring, all of which the drainer has seen. */
static bool stuck(void)
{
    pthread_mutex_lock(&keeper.drain.lock);
    bool all = keeper.drain.at == atomic_load(&keeper.control->produced);
    pthread_mutex_unlock(&keeper.drain.lock);
    return all && atomic_load(&keeper.control->producer_waits);
}

static int fail_writes(void *arg, enum ph_io_op op, uint64_t offset, uint64_t size)
{
    (void)arg;
    (void)offset;
    (void)size;
    if (op != PH_IO_WRITE || !atomic_load(&disk_full))
        return 0;
    while (atomic_load(&disk_full) == WHEN_STUCK && !stuck())
        usleep(1000);
    return ENOSPC;
}
static const struct ph_io_hooks hooks = {.before = fail_writes};

static void *watch(void *arg)
{
    *(int *)arg = ph_keeper_watch(&keeper, child);
    return NULL;
}

static pthread_t watcher;
static int wait_status;

static void start(void)
{
    struct ph_pool *pool;
    struct ph_keeper_options wishes = {.ring_bytes = PH_RING_MIN};
    struct ph_pool_options options = {.size = UINT64_C(1) << 32, .keep = 3};
    snprintf(path, sizeof path, "/tmp/ph-keeper-%d.pm", (int)getpid());
    unlink(path);
    sigset_t mask;
    ph_keeper_block_signals(&mask);
    ph_io_hooks = &hooks;
    cr_assert_eq(ph_pool_create(&pool, path, &options), 0);
    cr_assert_eq(ph_keeper_open(&keeper, "test", path, pool, &wishes, 0, 0), 0);
    atomic_store(&keeper.control->attached, 1);
    /* A stand-in for the program: lives until told to end. */
    cr_assert_eq(pipe(go), 0);
    child = fork();
    if (child == 0) {
        unsigned char status;
        /* Nothing of the test runner's may stay open here, or it waits for us. */
        dup2(go[0], 3);
        close_range(4, ~0u, 0);
        go[0] = 3;
        _exit(read(go[0], &status, 1) == 1 ? status : 99);
    }
    stage = (struct ph_stage){.control = keeper.control,
                              .ring = keeper.drain.ring,
                              .ring_pages = keeper.drain.ring_pages,
                              .peer_alive = alive};
    cr_assert_eq(pthread_create(&watcher, NULL, watch, &wait_status), 0);
}

static void end(unsigned char status)
{
    cr_assert_eq(write(go[1], &status, 1), 1);
    pthread_join(watcher, NULL);
    cr_assert(WIFEXITED(wait_status));
    cr_assert_eq(WEXITSTATUS(wait_status), status);
}

#define BASE UINT64_C(0x200000000000)

/** Stage an epoch whose @p n pages from @p first hold the byte @p fill. */
static void epoch(uint64_t number, bool full, unsigned first, unsigned n, int fill)
{
    struct ph_batch *b = ph_stage_reserve(&stage, 0);
    b->kind = PH_BATCH_BEGIN;
    b->epoch = number;
    b->flags = full ? PH_EPOCH_FULL : 0;
    b->time = ph_now_ns();
    for (unsigned i = 0; i < n; i += PH_BATCH_MAX) {
        unsigned count = n - i < PH_BATCH_MAX ? n - i : PH_BATCH_MAX;
        b = ph_stage_reserve(&stage, count);
        b->kind = PH_BATCH_PAGES;
        b->epoch = number;
        b->count = count;
        for (unsigned j = 0; j < count; j++)
            b->addr[j] = BASE + (first + i + j) * PH_PAGE;
        memset((unsigned char *)b + PH_PAGE, fill, count * PH_PAGE);
        ph_stage_publish(&stage);
    }
    struct ph_page_span present = {BASE, BASE + 4096 * PH_PAGE};
    ph_stage_bytes(&stage, PH_BATCH_PRESENT, number, &present, sizeof present);
    char record[32];
    snprintf(record, sizeof record, "record %d", (int)number);
    ph_stage_bytes(&stage, PH_BATCH_RECORD, number, record, sizeof record);
    b = ph_stage_reserve(&stage, 0);
    b->kind = PH_BATCH_COMMIT;
    b->epoch = number;
    b->time = number;
    ph_stage_publish(&stage);
}

static uint64_t outcome(uint64_t number)
{
    struct ph_control *c = keeper.control;
    while (atomic_load(&c->durable) < number && atomic_load(&c->failed) < number) {
        uint32_t seq = atomic_load(&c->outcome_seq);
        if (atomic_load(&c->durable) < number && atomic_load(&c->failed) < number)
            ph_futex_wait(&c->outcome_seq, seq, 1000);
    }
    return atomic_load(&c->durable);
}

/** The byte that page @p i holds in epoch @p number of the pool. */
static int stored(uint64_t number, unsigned i)
{
    struct ph_pool *pool;
    struct ph_view *view;
    int byte = -1;
    cr_assert_eq(ph_pool_open(&pool, path, PH_POOL_READ), 0);
    cr_assert_eq(ph_pool_view(pool, number, &view), 0);
    size_t n;
    const struct ph_run *run = ph_view_runs(view, &n);
    for (size_t r = 0; r < n; r++)
        if (run[r].addr <= BASE + i * PH_PAGE &&
            BASE + i * PH_PAGE < run[r].addr + run[r].npages * PH_PAGE) {
            unsigned char c;
            uint64_t at = run[r].offset + (BASE + i * PH_PAGE - run[r].addr) + 77;
            cr_assert_eq(pread(ph_pool_fd(pool), &c, 1, (off_t)at), 1);
            byte = c;
        }
    ph_view_free(view);
    ph_pool_close(pool);
    return byte;
}

Test(keeper, epochs_become_durable_in_order_through_a_ring_smaller_than_they_are)
{
    start();
    epoch(1, true, 0, 3000, 1); /* 12 MiB through 4 MiB */
    epoch(2, false, 100, 10, 2);
    epoch(3, false, 100, 5, 3);
    cr_assert_eq(outcome(3), 3);
    cr_assert_gt(stage.wait_ns, 0u);
    cr_assert_eq(stored(3, 0), 1);
    cr_assert_eq(stored(3, 104), 3);
    cr_assert_eq(stored(3, 109), 2);
    cr_assert_eq(stored(2, 104), 2);
    end(7);
    cr_assert_eq(stored(3, 2999), 1);
    unlink(path);
}

Test(keeper, equal_pages_are_not_written)
{
    start();
    epoch(1, true, 0, 500, 1);
    epoch(2, true, 0, 500, 1);
    cr_assert_eq(outcome(2), 2);
    cr_assert_eq(atomic_load(&keeper.control->pages_written), 0);
    cr_assert_eq(atomic_load(&keeper.control->total_pages_written), 500);
    end(1);
    unlink(path);
}

Test(keeper, after_a_full_disk_only_a_full_epoch_counts)
{
    start();
    epoch(1, true, 0, 100, 1);
    cr_assert_eq(outcome(1), 1);
    atomic_store(&disk_full, 1);
    epoch(2, false, 0, 10, 2);
    cr_assert_eq(outcome(2), 1);
    cr_assert_eq(atomic_load(&keeper.control->failed_code), PH_EFULL);
    cr_assert_eq(atomic_load(&keeper.control->consumed), stage.position); /* K4 */
    atomic_store(&disk_full, 0);
    epoch(3, false, 0, 1, 3); /* S4: says nothing without epoch 2 */
    cr_assert_eq(outcome(3), 1);
    epoch(4, true, 0, 100, 4);
    cr_assert_eq(outcome(4), 4);
    cr_assert_eq(stored(4, 5), 4);
    cr_assert_eq(stored(1, 5), 1);
    end(1);
    unlink(path);
}

Test(keeper, a_full_disk_does_not_stop_a_program_that_waits_for_room, .timeout = 120)
{
    start();
    epoch(1, true, 0, 100, 1);
    cr_assert_eq(outcome(1), 1);
    atomic_store(&disk_full, WHEN_STUCK);
    epoch(2, false, 0, 3000, 2); /* 12 MiB through 4 MiB */
    cr_assert_eq(outcome(2), 1);
    cr_assert_eq(atomic_load(&keeper.control->failed_code), PH_EFULL);
    atomic_store(&disk_full, 0);
    epoch(3, true, 0, 100, 3);
    cr_assert_eq(outcome(3), 3);
    end(1);
    unlink(path);
}

Test(keeper, an_epoch_without_its_end_never_counts)
{
    start();
    epoch(1, true, 0, 100, 1);
    struct ph_batch *b = ph_stage_reserve(&stage, 0);
    b->kind = PH_BATCH_BEGIN;
    b->epoch = 2;
    b = ph_stage_reserve(&stage, 1);
    b->kind = PH_BATCH_PAGES;
    b->epoch = 2;
    b->count = 1;
    b->addr[0] = BASE;
    ph_stage_publish(&stage);
    end(3);
    struct ph_pool *pool;
    struct ph_pool_info info;
    cr_assert_eq(ph_pool_open(&pool, path, PH_POOL_WRITE), 0);
    ph_pool_get_info(pool, &info);
    cr_assert_eq(info.newest, 1);
    cr_assert_eq(info.state, PH_POOL_RUNNING);
    ph_pool_close(pool);
    unlink(path);
}

Test(keeper, overwritten_staging_memory_ends_the_epochs_and_nothing_else)
{
    start();
    epoch(1, true, 0, 100, 1);
    cr_assert_eq(outcome(1), 1);
    struct ph_batch *b = ph_stage_reserve(&stage, 0);
    b->magic = 0xdeadbeef;
    ph_stage_publish(&stage);
    cr_assert_eq(outcome(2), 1);
    cr_assert_eq(atomic_load(&keeper.control->failed_code), PH_EINTERNAL);
    end(1);
    cr_assert_eq(stored(1, 7), 1);
    unlink(path);
}

Test(keeper, success_marks_the_pool_finished)
{
    start();
    epoch(1, true, 0, 10, 1);
    end(0);
    struct ph_pool *pool;
    struct ph_pool_info info;
    cr_assert_eq(ph_pool_open(&pool, path, PH_POOL_READ), 0);
    ph_pool_get_info(pool, &info);
    cr_assert_eq(info.state, PH_POOL_FINISHED);
    ph_pool_close(pool);
    unlink(path);
}

Test(keeper, a_pool_without_any_epoch_is_removed)
{
    start();
    end(5);
    cr_assert_neq(access(path, F_OK), 0);
}
