# SPDX-License-Identifier: MIT
"""signal.setitimer of all three kinds, a handler that runs at any bytecode, a wakeup descriptor,
signals blocked in a thread, sigtimedwait.

live: rounds=40
"""
import os
import signal
import sys
import threading
import time

import pyheap

ticks = {signal.SIGALRM: 0, signal.SIGVTALRM: 0, signal.SIGPROF: 0}


def tick(number, frame):
    ticks[number] += 1


def waiter(caught, count):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    for _ in range(count):
        caught.append(signal.sigwait({signal.SIGUSR2}))


def main():
    rounds = int(sys.argv[1])
    out, into = os.pipe()
    os.set_blocking(into, False)
    os.set_blocking(out, False)
    signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    caught = []
    thread = threading.Thread(target=waiter, args=(caught, rounds))
    thread.start()
    for number, timer in ((signal.SIGALRM, signal.ITIMER_REAL),
                          (signal.SIGVTALRM, signal.ITIMER_VIRTUAL),
                          (signal.SIGPROF, signal.ITIMER_PROF)):
        signal.signal(number, tick)
        signal.setitimer(timer, 0.003, 0.003)
    for r in range(rounds):
        before = dict(ticks)
        pyheap.epoch()
        deadline = time.monotonic() + 60
        while any(ticks[n] == before[n] for n in ticks):
            sum(i * i for i in range(2000))
            assert time.monotonic() < deadline, f"a timer stands still: {before} {ticks}"
        assert os.read(out, 4096)
        os.kill(os.getpid(), signal.SIGUSR2)
        while len(caught) <= r:
            assert time.monotonic() < deadline, "sigwait does not get its signal"
            time.sleep(0.0005)
        if r % 10 == 0:
            print(r, len(caught))
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    thread.join()
    print("ended")


main()
