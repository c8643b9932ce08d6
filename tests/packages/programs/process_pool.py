# SPDX-License-Identifier: MIT
"""concurrent.futures: a pool of processes that is lost at the recovery breaks as it does when its
workers are killed, and the program makes a new one; multiprocessing's queue, value and lock.

live: rounds=8
"""
import ctypes
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pyheap


def end_with_parent():
    """PR_SET_PDEATHSIG, or the workers of a killed program would wait for good."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def new_pool(context):
    return ProcessPoolExecutor(2, mp_context=context, initializer=end_with_parent)


def squares(pool, r):
    return list(pool.map(pow, range(r, r + 10), [2] * 10))


def main():
    rounds = int(sys.argv[1])
    context = multiprocessing.get_context("spawn")
    pool = new_pool(context)
    shared = context.Value("l", 0)
    queue = multiprocessing.get_context("fork").SimpleQueue()
    for r in range(rounds):
        queue.put(r)
        try:
            pyheap.epoch()  # the workers, if there are any, wait for work
            done = squares(pool, r)
        except BrokenProcessPool:
            pool.shutdown(wait=True)
            pool = new_pool(context)
            done = squares(pool, r)
        assert done == [n * n for n in range(r, r + 10)]
        with shared.get_lock():
            shared.value += 1
        assert queue.get() == r and shared.value == r + 1
        if r % 10 == 0:
            print(r, sum(done))
    pool.shutdown()


if __name__ == "__main__":
    main()
