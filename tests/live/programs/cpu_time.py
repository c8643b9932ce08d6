# SPDX-License-Identifier: MIT
"""A program that measures its CPU time, by every call that tells it, and ends when it has used up what
it was given: none of them goes back, and they agree.

live: rounds=40
"""
import ctypes
import os
import resource
import subprocess
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

libc = ctypes.CDLL(None)
libc.clock.restype = ctypes.c_long
libc.syscall.restype = ctypes.c_long


def used(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def by_system_call():
    usage = (ctypes.c_long * 18)()
    assert libc.syscall(98, 0, usage) == 0
    return usage[0] + usage[2] + (usage[1] + usage[3]) / 1e6


CLOCKS = {
    "process_time": time.process_time,
    "getrusage": lambda: used(resource.RUSAGE_SELF),
    "getrusage by system call": by_system_call,
    "os.times": lambda: sum(os.times()[:2]),
    "clock": lambda: libc.clock() / 1e6,
    "thread_time": time.thread_time,
    "RUSAGE_THREAD": lambda: used(resource.RUSAGE_THREAD),
    "RUSAGE_CHILDREN": lambda: used(resource.RUSAGE_CHILDREN),
    "os.times of children": lambda: sum(os.times()[2:4]),
    "elapsed": lambda: os.times().elapsed,
}


def read():
    return {name: clock() for name, clock in CLOCKS.items()}


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def main():
    subprocess.run([sys.executable, "-c", "for i in range(10**6): pass"], check=True)
    threading.Thread(target=burn, args=(0.02,)).start()
    burn(0.2)
    last = read()
    assert last["RUSAGE_CHILDREN"] > 0.01
    for r in range(int(sys.argv[1])):
        burn(0.002)
        now = read()
        pyheap.epoch()
        for before, after in ((last, now), (now, read())):
            for name in CLOCKS:
                # A tick of times(2) is rounded twice.
                assert after[name] >= before[name] - 0.03, (name, before, after)
        last = read()
    budget = last["process_time"]
    for name in list(CLOCKS)[1:5]:
        assert abs(last[name] - budget) < 0.5, (name, last)
    print("rounds", r + 1)


main()
