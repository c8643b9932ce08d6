#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""sweep.py - a parameter sweep in worker processes that survives a crash

    sweep.py TASKS [--workers N] [--start fork|spawn|forkserver]

Worker processes are not part of the program that pyheap saves: after a recovery they are gone.
So this starts new ones then (`pyheap.on_restore`) and gives them the tasks that have no result
yet. Each task counts the primes below a limit; the last line is the sum.
"""
import argparse
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

try:
    import pyheap
except ImportError:

    class pyheap:
        """What pyheap is in plain Python: nothing."""

        @staticmethod
        def epoch(label=None, wait=False):
            return 0

        @staticmethod
        def on_restore(callback):
            return callback


def count_primes(limit):
    """The work: how many primes lie below `limit`."""
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return sum(sieve)


def end_with_parent():
    """In each worker: who is killed cannot tell its workers to end."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Workers:
    """Processes that are started anew after a recovery."""

    def __init__(self, number, method):
        self.number = number
        self.context = multiprocessing.get_context(method)
        self.start()
        pyheap.on_restore(self.start)

    def start(self):
        self.executor = ProcessPoolExecutor(self.number, self.context, end_with_parent)


def sweep(workers, limits):
    """The results by limit, with an epoch after each."""
    results = {}
    while missing := [limit for limit in limits if limit not in results]:
        try:
            for limit, primes in zip(missing, workers.executor.map(count_primes, missing)):
                results[limit] = primes
                print(f"primes below {limit}: {primes}", flush=True)
                pyheap.epoch(f"{len(results)} of {len(limits)}")
        except BrokenProcessPool:  # the processes of before the crash
            print("what has no result yet goes to new workers", file=sys.stderr)
    return results


def main():
    parser = argparse.ArgumentParser(description="A parameter sweep in worker processes.")
    parser.add_argument("tasks", metavar="TASKS", type=int)
    parser.add_argument("--workers", metavar="N", type=int, default=2)
    parser.add_argument("--start", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    workers = Workers(args.workers, args.start)
    results = sweep(workers, [200_000 + 1_000 * n for n in range(args.tasks)])
    print("sum", sum(results.values()))


if __name__ == "__main__":
    main()
