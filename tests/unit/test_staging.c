/* SPDX-License-Identifier: MIT */
/* The staging ring: what the program stages arrives in order, whole, in bounded memory. */
#include "allocator/staging.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RING 600 /* pages: two full batches and a bit, so that it wraps and skips often */

static unsigned char *memory;
static bool alive;

static bool peer_alive(void)
{
    return alive;
}

static void open_ring(struct ph_stage *stage, struct ph_drain *drain, uint64_t pages)
{
    memory = mmap(NULL, ph_staging_size(pages), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(memory != MAP_FAILED);
    struct ph_control *c = (struct ph_control *)memory;
    c->ring_pages = pages;
    alive = true;
    *stage = (struct ph_stage){.control = c,
                               .ring = memory + PH_CONTROL_SIZE,
                               .ring_pages = pages,
                               .peer_alive = peer_alive};
    ph_drain_open(drain, c, memory + PH_CONTROL_SIZE, pages);
}

static void done(struct ph_drain *drain, const struct ph_batch *b)
{
    ph_drain_keep(drain, b, 0);
    ph_drain_release(drain, 0);
}

#define BATCHES 3000

static void *produce(void *arg)
{
    struct ph_stage *stage = arg;
    unsigned seed = 7;
    for (uint64_t i = 0; i < BATCHES; i++) {
        uint32_t n = (uint32_t)rand_r(&seed) % (PH_BATCH_MAX + 1);
        struct ph_batch *b = ph_stage_reserve(stage, n);
        if (!b)
            return NULL;
        b->kind = PH_BATCH_PAGES;
        b->epoch = i;
        b->count = n;
        for (uint32_t p = 0; p < n; p++) {
            b->addr[p] = i * 1000 + p;
            memset((unsigned char *)b + (p + 1) * PH_PAGE, (int)(i + p), PH_PAGE);
        }
        ph_stage_publish(stage);
    }
    return NULL;
}

Test(staging, batches_arrive_in_order_and_whole_while_the_ring_wraps)
{
    struct ph_stage stage;
    struct ph_drain drain;
    open_ring(&stage, &drain, RING);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, produce, &stage), 0);
    unsigned seed = 7, skips = 0;
    for (uint64_t i = 0; i < BATCHES;) {
        bool broken;
        const struct ph_batch *b =
            ph_drain_next(&drain, atomic_load(&drain.control->produced_seq), 1000, &broken);
        cr_assert(!broken);
        if (!b)
            continue;
        uint64_t backlog =
            atomic_load(&drain.control->produced) - atomic_load(&drain.control->consumed);
        cr_assert_leq(backlog, RING, "S1");
        if (b->kind == PH_BATCH_SKIP) {
            skips++;
        } else {
            uint32_t n = (uint32_t)rand_r(&seed) % (PH_BATCH_MAX + 1);
            cr_assert_eq(b->epoch, i);
            cr_assert_eq(b->count, n);
            for (uint32_t p = 0; p < n; p++) {
                const unsigned char *page = ph_batch_page(b, p);
                cr_assert_eq(b->addr[p], i * 1000 + p);
                cr_assert_eq(page[0], (unsigned char)(i + p));
                cr_assert_eq(page[PH_PAGE - 1], (unsigned char)(i + p));
            }
            i++;
        }
        done(&drain, b);
    }
    pthread_join(thread, NULL);
    cr_assert_gt(skips, 0u, "the test must have wrapped");
    cr_assert_gt(stage.wait_ns, 0u, "and the producer must have waited");
}

static void consume_all(struct ph_drain *drain)
{
    bool broken;
    const struct ph_batch *got;
    while ((got = ph_drain_next(drain, 0, 0, &broken)))
        done(drain, got);
    cr_assert(!broken);
}

/** Hand over a batch, which must be @p at pages of the ring. */
static void stage_at(struct ph_stage *stage, uint32_t npages, uint64_t at)
{
    struct ph_batch *b = ph_stage_reserve(stage, npages);
    cr_assert_eq((unsigned char *)b, stage->ring + at * PH_PAGE, "not at %u", (unsigned)at);
    b->kind = PH_BATCH_PAGES;
    ph_stage_publish(stage);
}

Test(staging, a_ring_that_is_empty_is_used_from_its_start)
{
    struct ph_stage stage;
    struct ph_drain drain;
    open_ring(&stage, &drain, RING);
    for (unsigned round = 0; round < 10; round++) {
        ph_stage_rewind(&stage);
        /* At its start there would be room for no more than what the last one took. */
        stage_at(&stage, 11 - round % 2, round % 2 ? 12 : 0);
        consume_all(&drain);
    }
    cr_assert_eq(stage.wait_ns, 0u);
}

Test(staging, a_ring_is_not_used_from_its_start_while_the_keeper_has_something_to_do)
{
    struct ph_stage stage;
    struct ph_drain drain;
    open_ring(&stage, &drain, RING);
    for (unsigned i = 0; i < 4; i++) {
        ph_stage_rewind(&stage);
        stage_at(&stage, 1, UINT64_C(2) * i);
    }
    consume_all(&drain);
    ph_stage_rewind(&stage);
    cr_assert_eq((unsigned char *)ph_stage_reserve(&stage, 1), stage.ring);
}

Test(staging, room_is_given_back_in_order_and_only_when_its_ticket_is_reached)
{
    struct ph_stage stage;
    struct ph_drain drain;
    bool broken;
    open_ring(&stage, &drain, RING);
    for (unsigned i = 0; i < 4; i++)
        ph_stage_reserve(&stage, 9)->kind = PH_BATCH_PAGES;
    ph_stage_publish(&stage);
    static const uint64_t ticket[4] = {5, 5, 7, 7};
    for (unsigned i = 0; i < 4; i++) {
        const struct ph_batch *b = ph_drain_next(&drain, 0, 0, &broken);
        cr_assert_eq((const unsigned char *)b, drain.ring + i * 10 * PH_PAGE, "batch %u", i);
        ph_drain_keep(&drain, b, ticket[i]);
    }
    cr_assert_null(ph_drain_next(&drain, 0, 0, &broken));
    ph_drain_release(&drain, 4);
    cr_assert_eq(atomic_load(&drain.control->consumed), 0);
    ph_drain_release(&drain, 5);
    cr_assert_eq(atomic_load(&drain.control->consumed), 20);
    ph_drain_release(&drain, 8);
    cr_assert_eq(atomic_load(&drain.control->consumed), 40);
}

Test(staging, a_full_ring_gives_up_when_the_keeper_is_gone)
{
    struct ph_stage stage;
    struct ph_drain drain;
    open_ring(&stage, &drain, 64);
    cr_assert_not_null(ph_stage_reserve(&stage, 50));
    alive = false;
    cr_assert_null(ph_stage_reserve(&stage, 50));
}

Test(staging, bytes_longer_than_a_batch_are_split)
{
    struct ph_stage stage;
    struct ph_drain drain;
    open_ring(&stage, &drain, 4 * PH_BATCH_MAX);
    size_t size = PH_BATCH_MAX * PH_PAGE + 12345;
    unsigned char *bytes = malloc(size), *got = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * 31 + i / 4096);
    cr_assert(ph_stage_bytes(&stage, PH_BATCH_RECORD, 5, bytes, size));
    size_t at = 0;
    bool broken;
    const struct ph_batch *b;
    while ((b = ph_drain_next(&drain, 0, 0, &broken))) {
        cr_assert_eq(b->kind, PH_BATCH_RECORD);
        memcpy(got + at, ph_batch_page(b, 0), b->bytes);
        at += b->bytes;
        done(&drain, b);
    }
    cr_assert_eq(at, size);
    cr_assert_arr_eq(got, bytes, size);
}

Test(staging, a_batch_that_the_program_has_overwritten_is_not_followed)
{
    static const struct {
        uint32_t magic, npages, count;
        uint64_t bytes;
    } bad[] = {{0, 0, 0, 0},
               {PH_BATCH_MAGIC, 10, 0, 0},         /* more than was published */
               {PH_BATCH_MAGIC, UINT32_MAX, 0, 0}, /* beyond the ring */
               {PH_BATCH_MAGIC, 1, 2, 0},          /* more pages than there are */
               {PH_BATCH_MAGIC, 1, UINT32_MAX, 0},
               {PH_BATCH_MAGIC, 1, 0, PH_PAGE + 1}}; /* more bytes than there are */
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ph_stage stage;
        struct ph_drain drain;
        bool broken;
        open_ring(&stage, &drain, RING);
        struct ph_batch *b = ph_stage_reserve(&stage, 1);
        b->kind = PH_BATCH_PAGES;
        b->magic = bad[i].magic;
        b->npages = bad[i].npages;
        b->count = bad[i].count;
        b->bytes = bad[i].bytes;
        ph_stage_publish(&stage);
        cr_assert_null(ph_drain_next(&drain, 0, 0, &broken), "case %zu", i);
        cr_assert(broken, "case %zu", i);
    }
}

static struct {
    struct ph_drain drain;
    cpu_set_t before, after;
    _Atomic pid_t tid;
} sleeper;

static void *drain_once(void *arg)
{
    bool broken;
    (void)arg;
    sched_getaffinity(0, sizeof sleeper.before, &sleeper.before);
    uint32_t seq = atomic_load(&sleeper.drain.control->produced_seq);
    sleeper.tid = gettid();
    ph_drain_next(&sleeper.drain, seq, 60000, &broken);
    sched_getaffinity(0, sizeof sleeper.after, &sleeper.after);
    return NULL;
}

/** A processor that this thread may run on, or -1. */
static int some_processor(const cpu_set_t *set)
{
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, set))
            return i;
    return -1;
}

Test(staging, who_waits_is_woken_elsewhere_than_by_its_waker)
{
    struct ph_stage stage;
    cpu_set_t mine, now;
    cr_assert_eq(sched_getaffinity(0, sizeof mine, &mine), 0);
    if (CPU_COUNT(&mine) < 2)
        cr_skip_test("one processor");
    open_ring(&stage, &sleeper.drain, RING);
    int processor = some_processor(&mine);
    atomic_store(&stage.control->waker, (uint32_t)processor);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, drain_once, NULL), 0);
    CPU_CLR(processor, &mine);
    do {
        sched_yield();
        CPU_ZERO(&now);
        if (sleeper.tid)
            sched_getaffinity(sleeper.tid, sizeof now, &now);
    } while (!CPU_EQUAL(&now, &mine));
    struct ph_batch *b = ph_stage_reserve(&stage, 0);
    b->kind = PH_BATCH_BEGIN;
    ph_stage_publish(&stage);
    pthread_join(thread, NULL);
    cr_assert(CPU_EQUAL(&sleeper.after, &sleeper.before));
}
