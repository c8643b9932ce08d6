/* SPDX-License-Identifier: MIT */
/*
 * ahead.c - copying changed pages before the program is stopped
 *
 * An epoch that is asked for (asked.c) need not come at once. So the thread that will take it
 * first copies what has changed in the heap to the staging ring, while the program runs, and
 * the pause copies only what has changed again. It is the same epoch: BEGIN is staged here,
 * and whoever takes the next epoch goes on with it.
 *
 *   look, sample --a while--> decide --> round, round, ... --> wait for the keeper
 *
 * What is hot (hot.c) is not protected, so nobody would know whether it has changed since it
 * was copied. Of each such block a few pages are compared over about as long as all the copying
 * will take: if they change, the block is left for the pause; if not, it is protected and
 * copied now, and unprotected by the epoch.
 *
 * Invariants
 *  A1  A page is protected before it is copied, so a change after or during the copy is found
 *      by the epoch's scan and copied again: no torn page counts (PH_EPOCH_AHEAD).
 *  A2  A page that a scan of ours has protected is staged, or unprotected again. If neither is
 *      possible the next epoch is a full one.
 *  A3  Whoever takes an epoch waits until `running` is 0, and nothing of this runs until it is
 *      done. What is shared with it, areas and stage, belongs to one of the two.
 *  A4  The program never waits for us: we wait for room in the ring, of which the pause finds
 *      three quarters free, if the keeper can keep up at all.
 *
 * The program's memory is read by process_vm_readv, since it may take away the right to read
 * it at any time.
 */
#include "agent_internal.h"

#include "allocator/syscall.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LEAST     2048u /* changed pages; fewer are copied in a few milliseconds */
#define ROUNDS    4
#define IDLE_NAPS 1000                 /* half a second */
#define CHUNK     (UINT64_C(32) << 20) /* protected at once */

static struct {
    struct ph_batch *batch; /* being filled; its pages are read when it is full */
    uint64_t copied;        /* pages, in this round */
    pid_t pid;
} now;

static bool stopped(void)
{
    return atomic_load(&ph_agent.in_epoch) ||
           atomic_load(&PH_CONTROL->failed) > ph_agent.failed_seen;
}

static void nap(void)
{
    struct timespec ts = {0, 500000};
    ph_syscall(SYS_nanosleep, &ts, NULL);
}

/** Pages in the ring that the keeper has not consumed. */
static uint64_t in_flight(void)
{
    return ph_agent.stage.position - atomic_load(&PH_CONTROL->consumed);
}

/** Wait until at most @p pages are in flight. @return false: stop. */
static bool wait_for_keeper(uint64_t pages)
{
    unsigned naps = 0;
    while (in_flight() > pages) {
        if (stopped() || (++naps % 64 == 0 && !ph_agent_keeper_alive()))
            return false;
        nap();
    }
    return !stopped();
}

/* ---- copying --------------------------------------------------------------------------- */

/** Pages that are protected and will not be copied (A2). */
static void give_back(uint64_t start, uint64_t end)
{
    if (start < end && ph_track_unprotect(&ph_agent.track, start, end) != 0)
        atomic_store(&ph_agent.ahead.lost, true);
}

static size_t read_pages(const struct ph_batch *b)
{
    static struct iovec from[PH_BATCH_MAX];
    struct iovec to = {(unsigned char *)b + PH_PAGE, b->count * PH_PAGE};
    size_t n = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        if (n && b->addr[i] == b->addr[i - 1] + PH_PAGE)
            from[n - 1].iov_len += PH_PAGE;
        else
            from[n++] = (struct iovec){(void *)b->addr[i], PH_PAGE};
    }
    long got = ph_syscall(SYS_process_vm_readv, now.pid, &to, 1, from, n, 0);
    return got < 0 ? 0 : (size_t)got / PH_PAGE;
}

/** Read and publish what has been gathered. */
static void flush(void)
{
    struct ph_batch *b = now.batch;
    now.batch = NULL;
    if (!b)
        return;
    uint32_t got = (uint32_t)read_pages(b);
    for (uint32_t i = got; i < b->count; i++)
        give_back(b->addr[i], b->addr[i] + PH_PAGE);
    for (uint32_t i = 0; i < got;) { /* the samples, run by run */
        uint32_t n = 1;
        while (i + n < got && b->addr[i + n] == b->addr[i] + n * PH_PAGE)
            n++;
        ph_hot_staged(b->addr[i], n, ph_batch_page(b, i));
        i += n;
    }
    b->count = got;
    now.copied += got;
    ph_agent.ahead.pages += got;
    ph_agent.stage.position -= b->npages - b->count;
    b->npages = b->count;
    ph_stage_publish(&ph_agent.stage);
}

static bool have_batch(void)
{
    if (now.batch)
        return true;
    uint64_t most = 2 * (PH_BATCH_MAX + 1), room = ph_agent.stage.ring_pages * 3 / 4;
    if (!wait_for_keeper(room > most ? room - most : 0))
        return false;
    now.batch = ph_stage_reserve(&ph_agent.stage, PH_BATCH_MAX);
    if (!now.batch)
        return false;
    now.batch->kind = PH_BATCH_PAGES;
    now.batch->epoch = ph_agent.ahead.epoch;
    return true;
}

/** Copy [start, end), which is protected. @return false: stop; the rest is given back. */
static bool copy(uint64_t start, uint64_t end)
{
    while (start < end) {
        if (!have_batch()) {
            give_back(start, end);
            return false;
        }
        struct ph_batch *b = now.batch;
        for (; start < end && b->count < PH_BATCH_MAX; start += PH_PAGE)
            b->addr[b->count++] = start;
        if (b->count == PH_BATCH_MAX)
            flush();
    }
    return true;
}

/* ---- scans ------------------------------------------------------------------------------- */

/** Copy what is present in [start, end), which is protected. @return false: stop. */
static bool copy_present(uint64_t start, uint64_t end)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(true, &max);
    bool on = true;
    for (uint64_t at = start, from = start; at < end; from = at) {
        long n = on ? ph_track_scan(&ph_agent.track, PH_TRACK_PRESENT, &at, end, r, max) : -1;
        if (n < 0) {
            give_back(from, end);
            return false;
        }
        for (long i = 0; i < n; i++) {
            if (on)
                on = copy(r[i].start, r[i].end);
            else
                give_back(r[i].start, r[i].end);
        }
    }
    return on;
}

/** Protect and copy what has changed in [start, end). @return false: stop. */
static bool copy_changed(uint64_t start, uint64_t end, bool again)
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    bool on = !stopped();
    for (uint64_t at = start; at < end && on;) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_CHANGED, &at, end, r, max);
        if (n < 0) { /* it may have protected some */
            atomic_store(&ph_agent.ahead.lost, true);
            return false;
        }
        for (long i = 0; i < n; i++) {
            if (!again)
                ph_hot_changed(r[i].start, r[i].end, true);
            if (on)
                on = copy_present(r[i].start, r[i].end);
            else
                give_back(r[i].start, r[i].end);
        }
    }
    return on;
}

/** Call @p each for the regions of [start, end) that have been written. @return pages. */
static uint64_t written(uint64_t start, uint64_t end, void (*each)(uint64_t, uint64_t))
{
    size_t max;
    struct ph_track_region *r = ph_memory_regions(false, &max);
    uint64_t pages = 0;
    for (uint64_t at = start; at < end && !stopped();) {
        long n = ph_track_scan(&ph_agent.track, PH_TRACK_WRITTEN, &at, end, r, max);
        if (n < 0)
            break;
        for (long i = 0; i < n; i++) {
            pages += (r[i].end - r[i].start) / PH_PAGE;
            if (each)
                each(r[i].start, r[i].end);
        }
    }
    return pages;
}

/* ---- what to do with a part of the heap ------------------------------------------------- */

/** A page of the program's, as it is now; NULL: it cannot be read. */
static const void *page_at(uint64_t addr)
{
    static unsigned char page[PH_PAGE] __attribute__((aligned(64)));
    struct iovec to = {page, PH_PAGE}, from = {(void *)addr, PH_PAGE};
    long n = ph_syscall(SYS_process_vm_readv, now.pid, &to, 1, &from, 1, 0);
    return n == (long)PH_PAGE ? page : NULL;
}

static void sample(uint64_t start, uint64_t end)
{
    ph_hot_sample(start, end, page_at);
}

/** @return how many pages have changed, hot ones among them. */
static uint64_t look(uint64_t start, uint64_t end)
{
    uint64_t pages = 0;
    ph_hot_look(start, end, page_at);
    for (uint64_t at = start, stop; at < end && !stopped(); at = stop) {
        bool hot = ph_hot_run(at, end, &stop);
        pages += written(at, stop, hot ? sample : NULL);
    }
    return pages;
}

/** Copy again in [start, end) what has changed again, but where most of it has. */
static bool copy_again(uint64_t start, uint64_t end)
{
    for (uint64_t at = start, stop; at < end; at = stop) {
        stop = (at / PH_HOT_BLOCK + 1) * PH_HOT_BLOCK;
        stop = stop < end ? stop : end;
        uint64_t n = written(at, stop, NULL);
        if (n && n < PH_HOT_HALF && !copy_changed(at, stop, true))
            return false;
    }
    return !stopped();
}

static bool copy_part(uint64_t start, uint64_t end, bool again)
{
    for (uint64_t at = start, stop; at < end; at = stop) {
        bool hot = ph_hot_run(at, end, &stop);
        if (hot)
            continue;
        if (stop - at > CHUNK)
            stop = at + CHUNK;
        if (!again ? !copy_changed(at, stop, false)
                   : written(at, stop, NULL) && !copy_again(at, stop))
            return false;
    }
    return true;
}

/* ---- all of it --------------------------------------------------------------------------- */

struct spans {
    struct ph_span span[16];
    size_t n;
};

/** @return pages copied. *on becomes false: stop. */
static uint64_t copy_round(const struct spans *used, bool again, bool *on)
{
    now.copied = 0;
    for (size_t i = 0; i < used->n && *on; i++)
        *on = copy_part(used->span[i].start, used->span[i].end, again);
    flush();
    return now.copied;
}

static void begin(void)
{
    ph_stage_rewind(&ph_agent.stage);
    struct ph_batch *b = ph_stage_reserve(&ph_agent.stage, 0);
    if (!b)
        return;
    b->kind = PH_BATCH_BEGIN;
    b->epoch = ph_agent.ahead.epoch = ph_agent.epoch + 1;
    b->flags = PH_EPOCH_AHEAD;
    b->time = ph_now_ns();
    ph_agent.ahead.pages = 0;
    ph_agent.ahead.open = true;
    ph_stage_publish(&ph_agent.stage);
}

static void copy_rounds(const struct spans *used)
{
    bool on = wait_for_keeper(ph_agent.stage.ring_pages / 4);
    if (on && !ph_agent.ahead.open)
        begin();
    if (!on || !ph_agent.ahead.open)
        return;
    uint64_t before = copy_round(used, false, &on);
    for (unsigned i = 1; i < ROUNDS && on; i++) {
        uint64_t waiting = ph_now_ns(), n;
        on = wait_for_keeper(ph_agent.stage.ring_pages / 4);
        waiting = ph_now_ns() - waiting;
        if (!on || (before < ph_agent.ahead.least && waiting < 10000000))
            return;
        n = copy_round(used, true, &on);
        if (n > before / 2)
            break;
        before = n;
    }
    /* What the keeper still does then takes processor and memory from the pause. */
    if (wait_for_keeper(ph_agent.stage.ring_pages / 4))
        for (unsigned i = 0; i < IDLE_NAPS && in_flight() && !stopped(); i++)
            nap();
}

/** Wait as long as copying @p pages takes, about. */
static void wait_about(uint64_t pages)
{
    uint64_t until = ph_now_ns() + pages * 1000;
    do
        nap();
    while (ph_now_ns() < until && !stopped());
}

static void copy_ahead(void)
{
    struct spans used;
    uint64_t pages = 0;
    if (!ph_hot_reach())
        return;
    used.n = ph_heap_used_spans(used.span, sizeof used.span / sizeof used.span[0]);
    now.pid = (pid_t)ph_syscall(SYS_getpid);
    ph_track_begin(&ph_agent.track);
    ph_agent.ahead.looked = ph_agent.epoch + 1;
    for (size_t i = 0; i < used.n; i++)
        pages += look(used.span[i].start, used.span[i].end);
    bool enough = pages >= ph_agent.ahead.least && !stopped();
    if (enough)
        wait_about(pages);
    for (size_t i = 0; i < used.n; i++)
        ph_hot_decide(used.span[i].start, used.span[i].end,
                      enough && !stopped() ? page_at : NULL);
    if (enough)
        copy_rounds(&used);
}

void ph_ahead_init(void)
{
    const char *least = getenv("PYHEAP_AHEAD_LEAST");
    ph_agent.ahead.least = least ? strtoull(least, NULL, 10) : LEAST;
}

void ph_ahead_run(void)
{
    if (!ph_agent_active())
        return;
    atomic_store(&ph_agent.ahead.running, 1);
    /* In this order, and the epoch in the other: one of the two sees the other. */
    if (!stopped() && ph_agent.tracking && !ph_agent.full && !ph_agent.restorer_mapped &&
        PH_CONTROL->generation == ph_agent.generation && ph_track_protects(&ph_agent.track))
        copy_ahead();
    atomic_store(&ph_agent.ahead.running, 0);
}

void ph_ahead_end(void)
{
    struct timespec ts = {0, 20000};
    while (atomic_load(&ph_agent.ahead.running))
        ph_syscall(SYS_nanosleep, &ts, NULL);
}
