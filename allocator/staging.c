/* SPDX-License-Identifier: MIT */
/* staging.c - the ring between program and keeper; see staging.h for its invariants */
#include "staging.h"

#include "syscall.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MADV_POPULATE_WRITE_ 23 /* linux/mman.h of Linux 5.14 */

/* Pages. With fewer the keeper sleeps until the program goes on: while it reads, copying takes
 * longer (*measured*, 10,000 pages: 3.9 instead of 3.0 ms). */
#define MUCH                 32768

void ph_futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_ms)
{
    struct timespec ts = {timeout_ms / 1000, (timeout_ms % 1000) * 1000000L};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &ts, NULL, 0);
}

void ph_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint64_t ph_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool wait_for_room(struct ph_stage *stage, uint64_t pages)
{
    struct ph_control *c = stage->control;
    uint64_t began = 0;
    while (stage->position + pages - atomic_load(&c->consumed) > stage->ring_pages) {
        /* The room needed may be in batches that the keeper has not been shown yet. */
        ph_stage_publish(stage);
        ph_stage_wake(stage);
        if (!began)
            began = ph_now_ns();
        atomic_store(&c->producer_waits, 1);
        uint32_t seq = atomic_load(&c->consumed_seq);
        if (stage->position + pages - atomic_load(&c->consumed) > stage->ring_pages)
            ph_futex_wait(&c->consumed_seq, seq, 100);
        atomic_store(&c->producer_waits, 0);
        if (!stage->peer_alive())
            return false;
    }
    if (began)
        stage->wait_ns += ph_now_ns() - began;
    return true;
}

/**
 * Have the next @p pages of the ring be there. Shared memory is charged when it is written to,
 * and where it is refused the writer gets SIGBUS (with vm.overcommit_memory=2; a full tmpfs).
 * Kernels before 5.14 do not know the advice.
 */
static bool there(struct ph_stage *stage, uint64_t pages)
{
    uint64_t end = stage->position % stage->ring_pages + pages;
    if (!stage->populate || end <= stage->populated)
        return true;
    long r;
    do
        r = ph_syscall(SYS_madvise, stage->ring + stage->populated * PH_PAGE,
                       (end - stage->populated) * PH_PAGE, MADV_POPULATE_WRITE_);
    while (r == -EINTR || r == -EAGAIN);
    stage->no_memory = r == -EFAULT || r == -ENOMEM;
    if (!stage->no_memory)
        stage->populated = end;
    return !stage->no_memory;
}

static struct ph_batch *header_at(struct ph_stage *stage, uint32_t npages)
{
    struct ph_batch *b =
        (struct ph_batch *)(stage->ring + stage->position % stage->ring_pages * PH_PAGE);
    memset(b, 0, offsetof(struct ph_batch, addr) + sizeof b->label);
    b->magic = PH_BATCH_MAGIC;
    b->npages = npages;
    stage->position += 1 + (uint64_t)npages;
    return b;
}

struct ph_batch *ph_stage_reserve(struct ph_stage *stage, uint32_t npages)
{
    uint64_t tail = stage->ring_pages - stage->position % stage->ring_pages;
    if (tail < 1 + (uint64_t)npages) {
        if (!wait_for_room(stage, tail) || !there(stage, 1))
            return NULL;
        /* A SKIP batch may be longer than PH_BATCH_MAX: its payload is never touched. */
        header_at(stage, (uint32_t)(tail - 1))->kind = PH_BATCH_SKIP;
    }
    if (!wait_for_room(stage, 1 + (uint64_t)npages) || !there(stage, 1 + (uint64_t)npages))
        return NULL;
    return header_at(stage, npages);
}

/** Where going on at the start leaves less room than may be needed, until the keeper has seen
 * it: waiting for that takes longer than to copy this much, in pages. */
#define SMALL 8192

void ph_stage_rewind(struct ph_stage *stage)
{
    uint64_t position = stage->position % stage->ring_pages;
    uint64_t taken = stage->position - stage->began;
    stage->began = stage->position;
    if (!position || atomic_load(&stage->control->consumed) != stage->position ||
        (taken < SMALL && position < 2 * taken))
        return;
    header_at(stage, (uint32_t)(stage->ring_pages - position - 1))->kind = PH_BATCH_SKIP;
    stage->began = stage->shown = stage->position; /* nothing to wake the keeper for */
}

void ph_stage_publish(struct ph_stage *stage)
{
    struct ph_control *c = stage->control;
    if (atomic_load_explicit(&c->produced, memory_order_relaxed) == stage->position)
        return;
    atomic_store(&c->produced, stage->position);
    atomic_fetch_add(&c->produced_seq, 1);
    if (!stage->quiet || stage->position - stage->shown >= MUCH)
        ph_stage_wake(stage);
}

void ph_stage_wake(struct ph_stage *stage)
{
    stage->shown = stage->position;
    if (!atomic_load(&stage->control->consumer_waits))
        return;
    unsigned processor = 0;
    ph_syscall(SYS_getcpu, &processor, NULL, NULL);
    atomic_store(&stage->control->waker, processor);
    ph_futex_wake(&stage->control->produced_seq);
}

bool ph_stage_bytes(struct ph_stage *stage, enum ph_batch_kind kind, uint64_t epoch,
                    const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    while (size) {
        size_t piece = size < PH_BATCH_MAX * PH_PAGE ? size : PH_BATCH_MAX * PH_PAGE;
        uint32_t npages = (uint32_t)((piece + PH_PAGE - 1) / PH_PAGE);
        struct ph_batch *b = ph_stage_reserve(stage, npages);
        if (!b)
            return false;
        b->kind = kind;
        b->epoch = epoch;
        b->bytes = piece;
        memcpy((unsigned char *)b + PH_PAGE, p, piece);
        ph_stage_publish(stage);
        p += piece;
        size -= piece;
    }
    return true;
}

/**
 * Sleep, to be woken on another processor than the program's own: some schedulers wake a thread
 * where its waker runs, which then waits for it (*measured*, on a virtual machine that packs
 * threads: 150 us in each epoch() instead of 10).
 */
static void sleep_aside(struct ph_control *c, uint32_t seq, int timeout_ms)
{
    cpu_set_t was, aside, now;
    unsigned processor = atomic_load(&c->waker);
    bool left = sched_getaffinity(0, sizeof was, &was) == 0 && CPU_ISSET(processor, &was) &&
                CPU_COUNT(&was) > 1;
    if (left) {
        aside = was;
        CPU_CLR(processor, &aside);
        left = sched_setaffinity(0, sizeof aside, &aside) == 0;
    }
    ph_futex_wait(&c->produced_seq, seq, timeout_ms);
    /* Somebody may have chosen other ones for us meanwhile. */
    if (left && sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&now, &aside))
        sched_setaffinity(0, sizeof was, &was);
}

const struct ph_batch *ph_drain_next(struct ph_drain *drain, uint32_t seq, int timeout_ms,
                                     bool *broken)
{
    struct ph_control *c = drain->control;
    *broken = false;
    uint64_t at = drain->at;
    if (atomic_load(&c->produced) == at) {
        atomic_store(&c->consumer_waits, 1);
        if (atomic_load(&c->produced) == at)
            sleep_aside(c, seq, timeout_ms);
        atomic_store(&c->consumer_waits, 0);
    }
    uint64_t ready = atomic_load(&c->produced) - at;
    if (!ready)
        return NULL;
    uint64_t pos = at % drain->ring_pages, tail = drain->ring_pages - pos;
    const struct ph_batch *b = (const struct ph_batch *)(drain->ring + pos * PH_PAGE);
    uint64_t n = 1 + (uint64_t)b->npages;
    if (ready > drain->ring_pages || b->magic != PH_BATCH_MAGIC || n > ready || n > tail ||
        b->count > PH_BATCH_MAX || b->bytes > (uint64_t)b->npages * PH_PAGE ||
        (b->kind == PH_BATCH_PAGES && b->count > b->npages)) {
        *broken = true;
        return NULL;
    }
    return b;
}

void ph_drain_open(struct ph_drain *drain, struct ph_control *control, unsigned char *ring,
                   uint64_t ring_pages)
{
    *drain = (struct ph_drain){.control = control, .ring = ring, .ring_pages = ring_pages};
    pthread_mutex_init(&drain->lock, NULL);
}

void ph_drain_keep(struct ph_drain *drain, const struct ph_batch *batch, uint64_t ticket)
{
    uint64_t pages = 1 + (uint64_t)batch->npages;

    pthread_mutex_lock(&drain->lock);
    drain->at += pages;
    struct ph_kept_room *last =
        &drain->kept[(drain->first + drain->n + PH_KEPT_MAX - 1) % PH_KEPT_MAX];
    if (drain->n && last->ticket == ticket) {
        last->pages += pages;
    } else {
        assert(drain->n < PH_KEPT_MAX);
        drain->kept[(drain->first + drain->n++) % PH_KEPT_MAX] =
            (struct ph_kept_room){ticket, pages};
    }
    pthread_mutex_unlock(&drain->lock);
}

void ph_drain_release(struct ph_drain *drain, uint64_t reached)
{
    struct ph_control *c = drain->control;
    uint64_t pages = 0;

    pthread_mutex_lock(&drain->lock);
    while (drain->n && drain->kept[drain->first].ticket <= reached) {
        pages += drain->kept[drain->first].pages;
        drain->first = (drain->first + 1) % PH_KEPT_MAX;
        drain->n--;
    }
    if (pages) {
        atomic_fetch_add(&c->consumed, pages);
        atomic_fetch_add(&c->consumed_seq, 1);
    }
    pthread_mutex_unlock(&drain->lock);
    if (pages && atomic_load(&c->producer_waits))
        ph_futex_wake(&c->consumed_seq);
}
