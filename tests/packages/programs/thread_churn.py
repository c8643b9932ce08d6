# SPDX-License-Identifier: MIT
"""Threads made and joined all the time, by several threads at once, while epochs are taken from
whichever thread comes first.

live: rounds=40
"""
import os
import sys
import threading
import time

import pyheap

stop = threading.Event()
turns = threading.Semaphore(0)
done = threading.Semaphore(0)
made = [0] * 4


def short(results, n):
    results.append(sum(range(n)))


def maker(slot):
    """Makes threads as fast as it can, and joins them; takes an epoch when it is asked to."""
    while not stop.is_set():
        results = []
        threads = [threading.Thread(target=short, args=(results, n)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [0, 0, 1, 3, 6]
        made[slot] += 5
        if turns.acquire(blocking=False):
            last = threading.Thread(target=pyheap.epoch)
            last.start()
            last.join()
            done.release()


def main():
    rounds = int(sys.argv[1])
    makers = [threading.Thread(target=maker, args=(slot,)) for slot in range(len(made))]
    for thread in makers:
        thread.start()
    for r in range(rounds):
        turns.release()
        assert done.acquire(timeout=120), "no epoch"
        assert all(thread.is_alive() for thread in makers)
        if r % 10 == 0:
            print(r, "epochs")
    stop.set()
    for thread in makers:
        thread.join()
    assert threading.active_count() == 1
    while len(os.listdir("/proc/self/task")) > 1:  # joined a moment before they are gone
        time.sleep(0.001)
    print("ended")


main()
