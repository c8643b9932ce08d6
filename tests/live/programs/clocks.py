# SPDX-License-Identifier: MIT
"""Sleeps and timed waits that are under way at the epoch last as long as they must.

live: rounds=30
"""
import queue
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap


def sleeper(seconds, log):
    for _ in range(1 + int(0.15 / seconds)):
        before = time.monotonic()
        time.sleep(seconds)
        log.append(time.monotonic() - before >= seconds)


def waiter(seconds, log):
    condition = threading.Condition()
    for _ in range(1 + int(0.15 / seconds)):
        before = time.monotonic()
        with condition:
            got = condition.wait(seconds)
        log.append(not got and time.monotonic() - before >= seconds)


def main():
    rounds = int(sys.argv[1])
    log, last, real = [], time.monotonic(), time.time()
    threads = []
    for r in range(rounds):
        if r % 10 == 0:
            for thread in threads:
                thread.join()
            threads = [threading.Thread(target=sleeper, args=(0.03, log)),
                       threading.Thread(target=waiter, args=(0.02, log))]
            for thread in threads:
                thread.start()
        try:
            queue.Queue().get(timeout=0.004)
        except queue.Empty:
            pass
        pyheap.epoch()
        now = time.monotonic()
        assert now >= last, "the monotonic clock went back"
        assert time.time() >= real - 1
        last = now
    for thread in threads:
        thread.join()
    assert all(log), "something slept too short"
    print("rounds", rounds, "waits", len(log))


main()
