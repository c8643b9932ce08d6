/* SPDX-License-Identifier: MIT */
/*
 * pieces.c - work of the pause that a parked thread shares
 *
 * A short epoch is system calls for the most part, many of them independent of each other. The
 * thread that was parked last is still awake, on another processor: before it sleeps it takes
 * pieces of that work. Who takes the epoch does what is left, so nothing depends on the other.
 * Some schedulers wake a thread where its waker runs: then it goes to another processor first.
 *
 *   W1  A piece is done once, after all threads are parked and before ph_pieces_do returns.
 *       Until then nobody changes what pieces read.
 *   W2  A parked thread is inside only while the turn is its own; who takes the epoch ends the
 *       turn and then waits for it. So it is behind no descriptor that has been closed.
 *   W3  The memory of a parked thread is part of the epoch: pieces leave its errno as it is,
 *       and use little of its stack, which may be nearly used up.
 *
 * An epoch may save these variables at any moment; ph_pieces_do sets all of them.
 */
#include "agent_internal.h"

#include "allocator/syscall.h"

#include <errno.h>

#define PATIENCE_NS UINT64_C(100000) /* what lies between parking and the pieces is less */

static struct {
    _Atomic uint32_t turn; /* of park.c: whose pieces there are; 0: none */
    _Atomic uint32_t next, inside;
    struct pieces {
        uint32_t number;
        ph_piece *piece;
    } own, added;
} work;

static void take(void)
{
    uint32_t i, own = work.own.number;
    while ((i = atomic_fetch_add(&work.next, 1)) < own + work.added.number)
        i < own ? work.own.piece(i) : work.added.piece(i - own);
}

void ph_pieces_do(uint32_t number, ph_piece *piece)
{
    atomic_store(&work.inside, 0);
    atomic_store(&work.next, 0);
    work.own = (struct pieces){number, piece};
    atomic_store(&work.turn, ph_park_turn());
    take();
    atomic_store(&work.turn, 0);
    while (atomic_load(&work.inside))
        ph_syscall(SYS_sched_yield);
    work.added.number = 0;
}

void ph_pieces_add(uint32_t number, ph_piece *piece)
{
    work.added = (struct pieces){number, piece};
}

void ph_pieces_finish(void)
{
    if (work.added.number)
        ph_pieces_do(0, NULL);
}

/** Leave the processor of who takes the epoch, if that is ours; we may be put there again. */
static void step_aside(void)
{
    uint64_t allowed[16], without[16], left = 0; /* 1024 processors */
    unsigned here = 0;
    ph_syscall(SYS_getcpu, &here, NULL, NULL);
    if (here != ph_park_processor())
        return;
    long size = ph_syscall(SYS_sched_getaffinity, 0, sizeof allowed, allowed);
    if (size <= 0 || here >= (unsigned long)size * 8)
        return;
    for (long i = 0; i < size / 8; i++) {
        without[i] = allowed[i];
        if (i == here / 64)
            without[i] &= ~(UINT64_C(1) << here % 64);
        left |= without[i];
    }
    if (left && ph_syscall(SYS_sched_setaffinity, 0, size, without) == 0)
        ph_syscall(SYS_sched_setaffinity, 0, size, allowed);
}

void ph_pieces_help(uint32_t turn)
{
    step_aside();
    uint64_t began = ph_now_ns();
    while (atomic_load(&work.turn) != turn) {
        if (ph_now_ns() - began > PATIENCE_NS)
            return;
        ph_syscall(SYS_sched_yield);
    }
    atomic_fetch_add(&work.inside, 1);
    int before = errno; /* nothing is staged while there are pieces */
    if (atomic_load(&work.turn) == turn)
        take();
    if (errno != before)
        errno = before;
    atomic_fetch_sub(&work.inside, 1);
}
