# SPDX-License-Identifier: MIT
"""Timers of timer_create, by signal, by thread and by CPU time, set for a moment and for a while; a
timerfd that stands still as long as they do.

live: rounds=40
"""
import ctypes
import signal
import sys
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

PATIENCE = 60
SIGEV_SIGNAL, SIGEV_THREAD, ABSTIME = 0, 2, 1
libc = ctypes.CDLL(None, use_errno=True)
try:
    libc.timer_create
except AttributeError:
    libc = ctypes.CDLL("librt.so.1", use_errno=True)  # glibc before 2.34
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
                ("function", CALLBACK), ("rest", ctypes.c_long * 8)]


class Timer:
    def __init__(self, clock, event):
        self.id = ctypes.c_void_p()
        assert libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self.id)) == 0

    def set(self, seconds, interval=0.0, flags=0):
        spec = (ctypes.c_long * 4)(*(part for s in (interval, seconds)
                                     for part in (int(s), int(s % 1 * 1e9))))
        assert libc.timer_settime(self.id, flags, spec, None) == 0

    def left(self):
        spec = (ctypes.c_long * 4)()
        assert libc.timer_gettime(self.id, spec) == 0
        return spec[2] + spec[3] / 1e9

    def delete(self):
        assert libc.timer_delete(self.id) == 0


def until(condition, what):
    deadline = time.time() + PATIENCE
    while not condition():
        assert time.time() < deadline, what
        sum(range(2000))


class Descriptor:
    def __init__(self, seconds):
        self.fd = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
        spec = (ctypes.c_long * 4)(0, 0, seconds, 0)
        assert self.fd >= 0 and libc.timerfd_settime(self.fd, 0, spec, None) == 0

    def left(self):
        spec = (ctypes.c_long * 4)()
        assert libc.timerfd_gettime(self.fd, spec) == 0
        return spec[2] + spec[3] / 1e9


def main():
    ticks, calls = [], []
    for number in (signal.SIGRTMIN, signal.SIGRTMIN + 1, signal.SIGPROF):
        signal.signal(number, lambda number, frame: ticks.append(number))
    callback = CALLBACK(calls.append)
    Timer(time.CLOCK_MONOTONIC, Event(0, signal.SIGUSR2, SIGEV_SIGNAL)).delete()  # leaves a gap
    periodic = Timer(time.CLOCK_MONOTONIC, Event(0, signal.SIGRTMIN, SIGEV_SIGNAL))
    once = Timer(time.CLOCK_REALTIME, Event(0, signal.SIGRTMIN + 1, SIGEV_SIGNAL))
    thread = Timer(time.CLOCK_MONOTONIC, Event(77, 0, SIGEV_THREAD, callback))
    busy = Timer(time.CLOCK_PROCESS_CPUTIME_ID, Event(0, signal.SIGPROF, SIGEV_SIGNAL))
    far = Timer(time.CLOCK_MONOTONIC, Event(0, signal.SIGUSR2, SIGEV_SIGNAL))
    idle = Timer(time.CLOCK_BOOTTIME, Event(0, signal.SIGUSR2, SIGEV_SIGNAL))
    periodic.set(0.002, 0.002)
    far.set(time.monotonic() + 5000, 0, ABSTIME)
    first = Timer(time.CLOCK_MONOTONIC, Event(0, signal.SIGUSR2, SIGEV_SIGNAL))
    first.set(5000)
    second = Descriptor(5000)
    for r in range(int(sys.argv[1])):
        ticks.clear()
        calls.clear()
        # About as long as an epoch takes, so that some expire in the middle of one.
        once.set(0.0003 * (r % 10) + 0.0001)
        if r % 2:
            thread.set(0.0003 * (r % 10) + 0.0001)
        else:
            thread.set(time.monotonic() + 0.0003 * (r % 10), 0, ABSTIME)
        busy.set(0.002)
        pyheap.epoch()
        ticked = ticks.count(signal.SIGRTMIN)
        until(lambda: ticks.count(signal.SIGRTMIN) > ticked + 1, "the periodic timer stands still")
        until(lambda: signal.SIGRTMIN + 1 in ticks, "a timer has not expired")
        until(lambda: calls, "a timer's function is not called")
        until(lambda: signal.SIGPROF in ticks, "a timer of CPU time has not expired")
        assert ticks.count(signal.SIGRTMIN + 1) == 1 and calls == [77], (ticks, calls)
        assert 1000 < far.left() <= 5000 and idle.left() == 0, (far.left(), idle.left())
        left = second.left()
        assert first.left() <= left, (first.left(), left)
        if r % 10 == 0:
            print("round", r)
    for timer in (periodic, once, thread, busy, far, idle, first):
        timer.delete()


main()
