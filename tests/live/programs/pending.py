# SPDX-License-Identifier: MIT
"""Signals that arrive while an epoch is being taken: each is handled, once, after a recovery too.

live: rounds=150
"""
import os
import signal
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

PATIENCE = 50_000  # turns: the time that the machine itself stands still is not waited


def wait_for(got, number):
    for _ in range(PATIENCE):
        if number in got:
            return
        time.sleep(0.0002)
    raise AssertionError(f"signal {number} is lost")


def main(rounds):
    got = []
    for number in (signal.SIGALRM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: got.append(number))
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    for r in range(rounds):
        got.clear()
        # About as long as an epoch takes, so that some expire in the middle of one.
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.0001 * (r % 12))
        pyheap.epoch(f"round {r}")
        wait_for(got, signal.SIGALRM)
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(got, signal.SIGUSR1)
        assert got == [signal.SIGALRM, signal.SIGUSR1], got
        if r % 50 == 0:
            print("round", r)
    stop.set()
    other.join()
    print("none lost, none twice")


main(int(sys.argv[1]))
