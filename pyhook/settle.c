/* SPDX-License-Identifier: MIT */
/*
 * settle.c - a recovered program's heap becomes ordinary memory
 *
 * Until its first epoch large stretches of it may be private mappings of the pool
 * (allocator/mapped.h). With all threads parked each is copied out, replaced by anonymous
 * memory and copied back, a piece at a time, so that the mappings of the heap merge to what
 * they were and huge pages are possible again.
 *
 * Also before a fork: the child keeps its mappings however long it lives, and the keeper, which
 * knows nothing of it, will write to the pool again after the parent's first epoch.
 */
#include "agent_internal.h"

#include "allocator/mapped.h"
#include "allocator/syscall.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PIECE (UINT64_C(2) << 20) /* a huge page */

/** Replace [start, end), at most a piece. */
static bool replace(uint64_t start, uint64_t end, unsigned char *copy)
{
    void *at = (void *)start;
    size_t size = end - start;
    memcpy(copy, at, size);
    if (mmap(at, size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != at)
        return false;
    if (start >= PH_HEAP_EXTENTS)
        madvise(at, size, MADV_HUGEPAGE);
    memcpy(at, copy, size);
    return true;
}

static int settle(void)
{
    struct ph_mapped *m = PH_MAPPED;
    unsigned char *copy = ph_agent.areas.present.base; /* scratch; no epoch is under way */
    if (m->n && !ph_area_reach(&ph_agent.areas.present, PIECE)) {
        ph_agent_detail("memory for what is still mapped from the pool", NULL, 0);
        return PH_ENOMEM;
    }
    while (m->n) {
        uint64_t start = m->stretch[m->n - 1].start, end = m->stretch[m->n - 1].end;
        while (start < end) {
            uint64_t piece = (start | (PIECE - 1)) + 1;
            piece = piece < end ? piece : end;
            if (!replace(start, piece, copy)) {
                ph_agent_detail("memory for what is still mapped from the pool", NULL, errno);
                return PH_ENOMEM;
            }
            m->stretch[m->n - 1].start = start = piece;
        }
        m->n--;
    }
    ph_syscall(SYS_madvise, copy, PIECE, MADV_DONTNEED);
    return 0;
}

int ph_settle(void)
{
    if (!ph_agent.restorer_mapped)
        return 0;
    int rc = settle();
    if (rc)
        return rc;
    /* Only now: with all threads parked here, none can still be in its last lines. */
    munmap((void *)PH_RESTORER_BASE, PH_RESTORER_END - PH_RESTORER_BASE);
    ph_agent.restorer_mapped = false;
    return 0;
}

static int fork_result;

static void settle_parked(void)
{
    fork_result = settle();
}

/** Whether a child made now would have memory that is mapped from the pool. */
static bool mapped_still(void)
{
    /* A fork may come before the thread that took the epoch has seen that it was recovered. */
    return (ph_agent.restorer_mapped || PH_CONTROL->generation != ph_agent.generation) &&
           PH_MAPPED->n;
}

/** Threads are parked for one reason at a time. @return false: an epoch was under way. */
static bool park_alone(int *rc)
{
    atomic_store(&ph_agent.settling, 1);
    bool alone = !atomic_load(&ph_agent.in_epoch);
    if (alone && (*rc = ph_park_and_run(NULL, settle_parked)) == 0)
        *rc = fork_result;
    atomic_store(&ph_agent.settling, 0);
    return alone;
}

void ph_settle_before_fork(void)
{
    static _Atomic int turn;
    int saved = errno, rc = 0;
    while (atomic_exchange(&turn, 1))
        ph_settle_pause();
    while (mapped_still() && !park_alone(&rc))
        ph_settle_pause();
    atomic_store(&turn, 0);
    if (rc)
        ph_agent_say("a child is made while memory is still mapped from the pool, which will "
                     "change: ",
                     ph_agent.detail, NULL);
    errno = saved;
}

void ph_settle_pause(void)
{
    struct timespec ts = {0, 100000};
    nanosleep(&ts, NULL);
}
