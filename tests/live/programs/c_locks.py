# SPDX-License-Identifier: MIT
"""glibc locks that know their owner by thread id, held by a thread across recoveries.

live: rounds=60
"""
import ctypes
import mmap
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

libc = ctypes.CDLL(None)
RECURSIVE, ERRORCHECK, PRIO_INHERIT, ROBUST = 1, 2, 1, 1
EBUSY = 16


def make_mutex(kind, inherit=False, robust=False):
    # Across the end of a page: its two parts are seldom together in the pool.
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    attr = ctypes.create_string_buffer(8)
    mutex = (ctypes.c_char * 40).from_buffer(pages, mmap.PAGESIZE - 24)
    assert libc.pthread_mutexattr_init(attr) == 0
    assert libc.pthread_mutexattr_settype(attr, kind) == 0
    if inherit:
        assert libc.pthread_mutexattr_setprotocol(attr, PRIO_INHERIT) == 0
    if robust:
        assert libc.pthread_mutexattr_setrobust(attr, ROBUST) == 0
    assert libc.pthread_mutex_init(mutex, attr) == 0
    return mutex


def hold(mutexes, rwlock, taken, release):
    """Each lock twice where that is allowed, and every way out must work."""
    for m in mutexes:
        assert libc.pthread_mutex_lock(m) == 0
    assert libc.pthread_mutex_lock(mutexes[0]) == 0
    assert libc.pthread_rwlock_wrlock(rwlock) == 0
    taken.set()
    release.wait()
    assert libc.pthread_mutex_unlock(mutexes[0]) == 0
    for m in mutexes:
        assert libc.pthread_mutex_unlock(m) == 0
    assert libc.pthread_rwlock_unlock(rwlock) == 0


def main(rounds):
    mutexes = [make_mutex(RECURSIVE), make_mutex(ERRORCHECK), make_mutex(RECURSIVE, inherit=True),
               make_mutex(ERRORCHECK, robust=True), make_mutex(0, inherit=True, robust=True)]
    rwlock = ctypes.create_string_buffer(56)
    assert libc.pthread_rwlock_init(rwlock, None) == 0
    for r in range(rounds):
        taken, release = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold, args=(mutexes, rwlock, taken, release))
        holder.start()
        taken.wait()
        pyheap.epoch(f"held {r}")
        for m in mutexes:
            assert libc.pthread_mutex_trylock(m) == EBUSY
        time.sleep(0.002)
        release.set()
        holder.join()
        for m in mutexes:
            assert libc.pthread_mutex_trylock(m) == 0
            assert libc.pthread_mutex_unlock(m) == 0
        assert libc.pthread_rwlock_tryrdlock(rwlock) == 0
        assert libc.pthread_rwlock_unlock(rwlock) == 0
        if r % 20 == 0:
            print("round", r)
    print("all locks free")


main(int(sys.argv[1]))
