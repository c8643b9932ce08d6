/* SPDX-License-Identifier: MIT */
/*
 * heap_lock.h - the heap's own lock: three states and a futex
 *
 * A word of plain memory that names no thread: a thread that is parked for an epoch while it
 * holds or awaits the lock finds everything as it was when the recovered process lets it go
 * on, though the kernel knows it under another id then. Not recursive. Leaves errno alone.
 *
 *   0 free   1 held   2 held, and somebody may sleep
 */
#ifndef PH_HEAP_LOCK_H
#define PH_HEAP_LOCK_H

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ph_lock {
    uint32_t word;
};

#define PH_LOCK_SPINS 200 /* the longest critical sections are shorter than a sleep */

static inline void ph_lock_acquire(struct ph_lock *lock)
{
    for (int i = 0; i < PH_LOCK_SPINS; i++) {
        uint32_t expected = 0;
        if (__atomic_compare_exchange_n(&lock->word, &expected, 1, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return;
        __builtin_ia32_pause();
    }
    int saved = errno;
    while (__atomic_exchange_n(&lock->word, 2, __ATOMIC_ACQUIRE) != 0)
        syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    errno = saved;
}

static inline void ph_lock_release(struct ph_lock *lock)
{
    if (__atomic_exchange_n(&lock->word, 0, __ATOMIC_RELEASE) == 2) {
        int saved = errno;
        syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        errno = saved;
    }
}

#endif
