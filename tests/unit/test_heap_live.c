/* SPDX-License-Identifier: MIT */
/*
 * test_heap_live.c - which pages are live, at any instruction
 *
 * A recovered program finds zero pages where no block was live. These tests do just that to
 * the heap, in the middle of its work, and let it go on.
 */
#include "test_heap_model.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static void start(void)
{
    cr_assert_eq(ph_heap_init(), 0);
}

TestSuite(heap_live, .init = start);

static struct model model;

static void lose(uint64_t from, uint64_t to)
{
    madvise((void *)from, to - from, MADV_DONTNEED);
}

static void spoil(uint64_t from, uint64_t to)
{
    memset((void *)from, 0xa5, to - from);
}

static uint64_t live_pages(void)
{
    struct ph_span run;
    uint64_t pages = 0;
    for (uint64_t at = PH_HEAP_BASE; ph_heap_live_run(at, PH_HEAP_END, &run); at = run.end)
        pages += (run.end - run.start) / PH_PAGE;
    return pages;
}

Test(heap_live, every_live_block_is_covered)
{
    model = (struct model){.state = 5, .max_log = 18, .items = MODEL_ITEMS};
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 3000; i++)
            model_operate(&model);
        for (size_t i = 0; i < model.items; i++)
            cr_assert(!model.item[i].p || model_covered(&model.item[i]));
        struct ph_heap_stats stats;
        ph_heap_get_stats(&stats);
        cr_assert_eq(live_pages(), stats.live_pages);
    }
}

Test(heap_live, runs_are_maximal_ascending_and_clipped)
{
    model = (struct model){.state = 6, .max_log = 17, .items = MODEL_ITEMS};
    for (int i = 0; i < 20000; i++)
        model_operate(&model);
    struct ph_span run, part;
    uint64_t end = 0;
    for (uint64_t at = PH_HEAP_BASE; ph_heap_live_run(at, PH_HEAP_END, &run); at = run.end) {
        cr_assert(run.start > end && run.end > run.start);
        cr_assert(run.start % PH_PAGE == 0 && run.end % PH_PAGE == 0);
        cr_assert(ph_heap_live_run(run.end - PH_PAGE, run.end, &part));
        cr_assert(part.start == run.end - PH_PAGE && part.end == run.end);
        cr_assert(ph_heap_live_run(run.start + 7, PH_HEAP_END, &part), "from inside a page");
        cr_assert(part.start == run.start && part.end == run.end);
        end = run.end;
    }
    cr_assert_neq(end, 0);
}

Test(heap_live, freed_pages_are_not_reported)
{
    static void *p[5000];
    void *extent = ph_heap_malloc(3 << 20);
    for (int i = 0; i < 5000; i++)
        p[i] = ph_heap_malloc(200);
    struct ph_heap_stats stats;
    ph_heap_get_stats(&stats);
    uint64_t blocks = 5000 * 208 / PH_PAGE + (3 << 20) / PH_PAGE;
    cr_assert(live_pages() >= blocks + stats.table_pages);
    cr_assert(live_pages() <= blocks + stats.table_pages + 20);
    ph_heap_free(extent);
    for (int i = 0; i < 5000; i++)
        ph_heap_free(p[i]);
    ph_heap_get_stats(&stats);
    cr_assert_eq(live_pages(), stats.table_pages);
}

Test(heap_live, one_block_keeps_its_pages_alone)
{
    static char *p[2000];
    for (int i = 0; i < 2000; i++)
        p[i] = ph_heap_malloc(21760); /* three to a slab, across pages */
    for (int i = 0; i < 2000; i++)
        if (i != 1000)
            ph_heap_free(p[i]);
    struct ph_span run;
    cr_assert(ph_heap_live_run(PH_HEAP_BASE + (UINT64_C(1) << 40), PH_HEAP_END, &run));
    cr_assert_eq(run.start, (uintptr_t)p[1000] / PH_PAGE * PH_PAGE);
    cr_assert_eq(run.end, ((uintptr_t)p[1000] + 21760 + PH_PAGE - 1) / PH_PAGE * PH_PAGE);
    cr_assert_not(ph_heap_live_run(run.end, PH_HEAP_END, &run));
}

Test(heap_live, used_spans_hold_all_and_are_few)
{
    model = (struct model){.state = 8, .max_log = 18, .items = MODEL_ITEMS};
    for (int i = 0; i < 20000; i++)
        model_operate(&model);
    for (size_t max = 1; max < 10; max++) {
        struct ph_span span[10], run;
        size_t n = ph_heap_used_spans(span, max), i = 0;
        cr_assert(n >= 1 && n <= max);
        for (size_t k = 0; k < n; k++) {
            cr_assert(span[k].start < span[k].end);
            cr_assert(span[k].start % PH_PAGE == 0 && span[k].end % PH_PAGE == 0);
            cr_assert(k == 0 || span[k].start >= span[k - 1].end);
        }
        for (uint64_t at = PH_HEAP_BASE; ph_heap_live_run(at, PH_HEAP_END, &run);
             at = run.end) {
            while (i < n && span[i].end < run.end)
                i++;
            cr_assert(i < n && span[i].start <= run.start, "a run outside of all spans");
        }
    }
}

Test(heap_live, dead_pages_may_be_lost_or_spoiled)
{
    model = (struct model){.state = 9, .max_log = 18, .items = MODEL_ITEMS};
    for (int round = 0; round < 100 * model_scale(); round++) {
        for (int i = 0; i < 500; i++)
            model_operate(&model);
        model_each_dead(round % 2 ? lose : spoil);
        for (size_t i = 0; i < model.items; i++)
            cr_assert(!model.item[i].p || model_intact(&model.item[i]));
        model_validate();
        ph_heap_epoch_mark();
    }
}

/* ---- slabs -------------------------------------------------------------------------- */

#define SLAB_PAGES_SEEN (1u << 18) /* of slab space */

static unsigned char live_before[SLAB_PAGES_SEEN], live_now[SLAB_PAGES_SEEN],
    decided[SLAB_PAGES_SEEN], table_before[4 << 20];

/* @return pages of slab space in use. */
static size_t note_slab_pages(unsigned char *live)
{
    struct ph_span space = ph_heap_slab_space, span[10], run;
    size_t n = ph_heap_used_spans(span, 10), pages = 0;
    for (size_t i = 0; i < n; i++)
        if (span[i].start == space.start)
            pages = (span[i].end - space.start) / PH_PAGE;
    cr_assert(pages <= SLAB_PAGES_SEEN);
    memset(live, 0, SLAB_PAGES_SEEN);
    uint64_t end = space.start + pages * PH_PAGE;
    for (uint64_t at = space.start; ph_heap_live_run(at, end, &run); at = run.end)
        memset(live + (run.start - space.start) / PH_PAGE, 1, (run.end - run.start) / PH_PAGE);
    return pages;
}

Test(heap_live, of_slabs_the_pages_of_their_table_decide)
{
    model = (struct model){.state = 12, .max_log = 15, .items = MODEL_ITEMS};
    size_t kept = 0, changes = 0;
    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < 4000 >> round % 10; i++)
            model_operate(&model);
        struct ph_span table = ph_heap_slab_table, space = ph_heap_slab_space;
        size_t pages = note_slab_pages(live_before);
        memcpy(table_before, (void *)table.start, sizeof table_before);
        for (int i = 0; i < 10; i++)
            model_operate(&model);
        note_slab_pages(live_now);
        memset(decided, 0, sizeof decided);
        for (uint64_t at = 0; at < sizeof table_before; at += PH_PAGE) {
            if (memcmp(table_before + at, (void *)(table.start + at), PH_PAGE) == 0)
                continue;
            struct ph_span of = ph_heap_slabs_of(table.start + at, table.start + at + PH_PAGE);
            for (uint64_t p = of.start; p < of.end; p += PH_PAGE)
                decided[(p - space.start) / PH_PAGE] = 1;
        }
        for (size_t p = 0; p < pages; p++) {
            kept += !decided[p];
            changes += live_now[p] != live_before[p];
            cr_assert(decided[p] || live_now[p] == live_before[p], "page %zu", p);
        }
    }
    cr_assert(kept > 10000 && changes > 100, "%zu pages kept, %zu changed", kept, changes);
}

/* ---- between any two instructions ---------------------------------------------------- */

static volatile sig_atomic_t stepping;
static volatile long steps, uncovered;
static volatile uint64_t walked_pages;

/* After each instruction in the heap: what the program owns is live, and the rest may go. */
static void on_step(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    if (model_in_heap) {
        steps++;
        for (size_t i = 0; i < model.items; i++)
            if (model.item[i].p && !model_covered(&model.item[i]))
                uncovered++;
        walked_pages += live_pages(); /* a walk to the end must end */
        if (steps % 4 == 0)
            model_each_dead(lose);
    }
    if (!stepping)
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100LL;
}

static void on_begin(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    stepping = 1;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= 0x100; /* the trap flag */
}

static void step_operations(int operations)
{
    raise(SIGUSR1);
    for (int i = 0; i < operations; i++)
        model_operate(&model);
    stepping = 0;
}

static void on_signal(int sig, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    cr_assert_eq(sigaction(sig, &action, NULL), 0);
}

Test(heap_live, at_every_instruction_of_small_blocks)
{
    on_signal(SIGTRAP, on_step);
    on_signal(SIGUSR1, on_begin);
    model = (struct model){.state = 10, .max_log = 6, .items = 12};
    step_operations(200 * (int)model_scale());
    cr_assert(steps > 10000, "%ld steps", steps);
    cr_assert_eq(uncovered, 0);
    model_validate();
}

Test(heap_live, at_every_instruction_of_extents)
{
    on_signal(SIGTRAP, on_step);
    on_signal(SIGUSR1, on_begin);
    model = (struct model){.state = 11, .max_log = 17, .items = 10};
    for (int round = 0; round < 20 * model_scale(); round++) {
        for (int i = 0; i < 50; i++)
            model_operate(&model);
        step_operations(3);
    }
    cr_assert(steps > 10000, "%ld steps", steps);
    cr_assert_eq(uncovered, 0);
    model_validate();
}

/* Sizes in pages, on the items in turn: 0 frees. Each way of cutting and joining occurs. */
static const struct {
    int item, pages;
} extent_script[] = {
    {0, 50},  {0, 0},   {0, 100},            /* the hole at the top grows */
    {1, 30},  {2, 50},  {3, 2100}, {4, 10},  /* new, one of them aligned */
    {1, 20},  {1, 60},  {0, 0},    {1, 0},   /* shrink, move, join both ways */
    {0, 40},  {0, 90},  {0, 0},              /* cut, grow into a part of a hole */
    {0, 200}, {5, 20},  {5, 0},    {5, 300}, /* new, gone, new */
    {5, 400}, {3, 0},   {2, 0},    {4, 0},   {0, 0}, {3, 900}, /* at the top in place; join */
    {5, 0},   {3, 950}, {3, 0},
};

static void run_extent_script(void)
{
    for (size_t i = 0; i < sizeof extent_script / sizeof *extent_script; i++) {
        struct model_item *item = &model.item[extent_script[i].item];
        size_t size = (size_t)extent_script[i].pages * PH_PAGE;
        unsigned char *p = item->p;
        if (size == 0) {
            item->p = NULL;
            IN_HEAP(ph_heap_free(p));
            continue;
        }
        item->p = NULL;
        size_t common = p && item->size < size ? item->size : size;
        unsigned char *q;
        IN_HEAP(q = p ? ph_heap_realloc(p, size) : ph_heap_malloc(size));
        for (size_t k = 0; p && k < common; k += PH_PAGE)
            MODEL_CHECK(q[k] == (unsigned char)item->seed);
        item->seed = (uint32_t)i + 1;
        for (size_t k = 0; k < size; k += PH_PAGE)
            q[k] = (unsigned char)item->seed;
        item->size = size;
        item->p = q;
    }
}

Test(heap_live, at_every_instruction_of_cutting_and_joining, .timeout = 120)
{
    on_signal(SIGTRAP, on_step);
    on_signal(SIGUSR1, on_begin);
    model = (struct model){.items = 6};
    raise(SIGUSR1);
    run_extent_script();
    stepping = 0;
    cr_assert(steps > 2000, "%ld steps", steps);
    cr_assert_eq(uncovered, 0);
    model_validate();
}

/* ---- threads parked anywhere --------------------------------------------------------- */

#define WORKERS 3

static struct model worker_model[WORKERS];
static atomic_int parked, generation, finished;
static _Atomic(void *) mailbox[64]; /* blocks on their way to another thread */

static void on_park(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    (void)context;
    int mine = atomic_load(&generation);
    atomic_fetch_add(&parked, 1);
    while (atomic_load(&generation) == mine)
        sched_yield();
}

static void *work(void *arg)
{
    struct model *m = arg;
    while (!atomic_load(&finished)) {
        model_operate(m);
        /* Send a block to whoever comes by, free what another has sent. */
        size_t *p = ph_heap_malloc(16 + model_random(m) % 300);
        p[0] = (uintptr_t)p;
        size_t *q = atomic_exchange(&mailbox[model_random(m) % 64], p);
        if (q) {
            MODEL_CHECK(q[0] == (uintptr_t)q);
            ph_heap_free(q);
        }
    }
    return NULL;
}

Test(heap_live, threads_parked_anywhere_lose_nothing, .timeout = 120)
{
    on_signal(SIGUSR2, on_park);
    pthread_t thread[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        worker_model[i] = (struct model){.state = 20 + i, .max_log = 17, .items = 300};
        cr_assert_eq(pthread_create(&thread[i], NULL, work, &worker_model[i]), 0);
    }
    for (int epoch = 0; epoch < 100 * model_scale(); epoch++) {
        atomic_store(&parked, 0);
        for (int i = 0; i < WORKERS; i++)
            pthread_kill(thread[i], SIGUSR2);
        while (atomic_load(&parked) < WORKERS)
            sched_yield();
        model_each_dead(lose);
        ph_heap_epoch_mark();
        atomic_fetch_add(&generation, 1);
        usleep(1000);
    }
    atomic_store(&finished, 1);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(thread[i], NULL);
    model_validate();
    for (int i = 0; i < WORKERS; i++)
        model_free_all(&worker_model[i]);
    for (int i = 0; i < 64; i++)
        ph_heap_free(mailbox[i]);
    model_validate();
    struct ph_heap_stats stats;
    ph_heap_get_stats(&stats);
    cr_assert_eq(stats.live_blocks, 0);
}
