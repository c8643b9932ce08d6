/* SPDX-License-Identifier: MIT */
/* test_heap_threads.c - several threads in the heap, their ends, and fork among them */
#include "test_heap_model.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static void start(void)
{
    cr_assert_eq(ph_heap_init(), 0);
}

TestSuite(heap_threads, .init = start, .timeout = 120);

#define THREADS 4

static struct model model[THREADS];
static atomic_int finished;
static _Atomic(size_t *) mailbox[256];

static uint64_t slab_pages(void)
{
    struct ph_heap_stats stats;
    ph_heap_get_stats(&stats);
    return stats.slab_pages;
}

/* Leave a block where another thread finds it; free the one that was there. */
static void exchange_block(struct model *m)
{
    size_t size = 16 + model_size(m);
    size_t *p = ph_heap_malloc(size), *q;
    MODEL_CHECK(p);
    p[0] = size;
    p[1] = (uintptr_t)p;
    q = atomic_exchange(&mailbox[model_random(m) % 256], p);
    if (q) {
        MODEL_CHECK(q[1] == (uintptr_t)q && ph_heap_usable_size(q) >= q[0]);
        ph_heap_free(q);
    }
}

static void empty_mailbox(void)
{
    for (int i = 0; i < 256; i++) {
        ph_heap_free(atomic_load(&mailbox[i]));
        atomic_store(&mailbox[i], NULL);
    }
}

static void *run_some(void *arg)
{
    struct model *m = arg;
    for (long i = 0; i < 5000; i++) {
        model_operate(m);
        exchange_block(m);
    }
    return NULL;
}

static void *run_on(void *arg)
{
    while (!atomic_load(&finished)) {
        model_operate(arg);
        exchange_block(arg);
    }
    return NULL;
}

static void run_generation(void *(*body)(void *), unsigned seed)
{
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        model[i].state = seed + i;
        model[i].max_log = 16;
        model[i].items = 500;
        cr_assert_eq(pthread_create(&thread[i], NULL, body, &model[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
}

Test(heap_threads, blocks_outlive_threads_and_cross_them)
{
    for (unsigned generation = 0; generation < 8 * model_scale(); generation++) {
        run_generation(run_some, 100 + generation * THREADS);
        model_validate();
        ph_heap_epoch_mark();
    }
    for (int i = 0; i < THREADS; i++)
        model_free_all(&model[i]);
    empty_mailbox();
    model_validate();
    struct ph_heap_stats stats;
    ph_heap_get_stats(&stats);
    cr_assert_eq(stats.live_blocks, 0);
}

#define GIFTS 20000
static void *gift[GIFTS];

static void *allocate_gifts(void *arg)
{
    size_t size = *(size_t *)arg;
    for (int i = 0; i < GIFTS; i++)
        MODEL_CHECK(gift[i] = ph_heap_malloc(size));
    return NULL;
}

Test(heap_threads, what_a_dead_thread_left_is_used_again)
{
    for (int round = 0; round < 10; round++) {
        size_t size = round % 2 ? 64 : 200;
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, allocate_gifts, &size), 0);
        pthread_join(thread, NULL);
        for (int i = 0; i < GIFTS; i++)
            ph_heap_free(gift[i]);
        model_validate();
    }
    struct ph_span span[8];
    size_t n = ph_heap_used_spans(span, 8);
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += span[i].end - span[i].start;
    cr_assert(all < 2 * GIFTS * 208, "%lu bytes used for one round's %d", all, GIFTS * 208);
}

static void *allocate_some(void *arg)
{
    for (int i = 0; i < GIFTS / 16; i++)
        MODEL_CHECK(ph_heap_malloc(64));
    return arg;
}

Test(heap_threads, slabs_of_dead_threads_are_adopted)
{
    pthread_t thread;
    size_t size = 64;
    pthread_create(&thread, NULL, allocate_gifts, &size);
    pthread_join(thread, NULL);
    uint64_t first = slab_pages();
    for (int i = 0; i < GIFTS; i++)
        if (i % 4)
            ph_heap_free(gift[i]);
    for (int i = 0; i < 10; i++) { /* together they fit into the holes */
        pthread_create(&thread, NULL, allocate_some, NULL);
        pthread_join(thread, NULL);
    }
    cr_assert_eq(slab_pages(), first);
    model_validate();
}

static atomic_int allocated, released;

static void *allocate_gifts_and_wait(void *arg)
{
    allocate_gifts(arg);
    atomic_store(&allocated, 1);
    while (!atomic_load(&released))
        usleep(100);
    return NULL;
}

Test(heap_threads, what_others_freed_before_a_thread_ended_is_used_again)
{
    pthread_t thread;
    size_t size = 64;
    ph_heap_free(ph_heap_malloc(1)); /* else we would inherit what the thread had */
    pthread_create(&thread, NULL, allocate_gifts_and_wait, &size);
    while (!atomic_load(&allocated))
        usleep(100);
    uint64_t first = slab_pages();
    for (int i = 0; i < GIFTS; i++)
        ph_heap_free(gift[i]);
    atomic_store(&released, 1);
    pthread_join(thread, NULL);
    allocate_gifts(&size);
    cr_assert(slab_pages() <= first + 16, "%lu, %lu at first", slab_pages(), first);
    model_validate();
}

static atomic_int go_on;

/* Allocates, waits for others to free it all, allocates again: from the slots freed. */
static void *produce_twice(void *arg)
{
    size_t size = 64;
    for (int round = 0; round < 10; round++) {
        allocate_gifts(&size);
        atomic_store(&go_on, 1);
        while (atomic_load(&go_on))
            usleep(100);
    }
    return arg;
}

Test(heap_threads, a_producer_reuses_what_a_consumer_frees)
{
    pthread_t thread;
    uint64_t first = 0;
    cr_assert_eq(pthread_create(&thread, NULL, produce_twice, NULL), 0);
    for (int round = 0; round < 10; round++) {
        while (!atomic_load(&go_on))
            usleep(100);
        if (round == 0)
            first = slab_pages();
        for (int i = 0; i < GIFTS; i++)
            ph_heap_free(gift[i]);
        atomic_store(&go_on, 0);
    }
    pthread_join(thread, NULL);
    model_validate();
    cr_assert(first > 300 && slab_pages() <= first + 32, "%lu, then %lu", first, slab_pages());
}

static void *free_it(void *p)
{
    ph_heap_free(p);
    return NULL;
}

Test(heap_threads, double_free_by_another_thread_is_fatal, .signal = SIGABRT)
{
    void *p = ph_heap_malloc(40);
    pthread_t thread;
    for (int i = 0; i < 2; i++) {
        pthread_create(&thread, NULL, free_it, p);
        pthread_join(thread, NULL);
    }
}

Test(heap_threads, free_by_another_thread_after_ours_is_fatal, .signal = SIGABRT)
{
    void *p = ph_heap_malloc(40);
    ph_heap_free(p);
    pthread_t thread;
    pthread_create(&thread, NULL, free_it, p);
    pthread_join(thread, NULL);
}

/* In the child: the heap is whole, the forker's blocks are intact, everything can be freed. */
static void live_in_child(struct model *own)
{
    model_validate();
    struct model *m = calloc(1, sizeof *m);
    *m = (struct model){.state = 4, .max_log = 16, .items = 500};
    for (int i = 0; i < 2000; i++) {
        model_operate(m);
        model_operate(own);
    }
    model_free_all(m);
    model_free_all(own);
    empty_mailbox();
    model_validate();
    _exit(0);
}

Test(heap_threads, a_child_forked_among_threads_has_a_usable_heap)
{
    static struct model own = {.state = 3, .max_log = 16, .items = 500};
    cr_assert_eq(pthread_atfork(ph_heap_fork_prepare, ph_heap_fork_parent, ph_heap_fork_child),
                 0);
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        model[i] = (struct model){.state = 50 + i, .max_log = 16, .items = 500};
        cr_assert_eq(pthread_create(&thread[i], NULL, run_on, &model[i]), 0);
    }
    for (int round = 0; round < 30 * model_scale(); round++) {
        for (int i = 0; i < 500; i++) {
            model_operate(&own);
            exchange_block(&own); /* so that others free into our slabs, too */
        }
        pid_t child = fork();
        if (child == 0)
            live_in_child(&own);
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: status %x", status);
    }
    atomic_store(&finished, 1);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    model_validate();
}
