# SPDX-License-Identifier: MIT
"""Signal handlers, masks and an alarm of the program work after recovery as before.

live: rounds=60
"""
import os
import signal
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap

seen = {"USR1": 0, "USR2": 0}


def on_usr1(number, frame):
    seen["USR1"] += 1
    assert number == signal.SIGUSR1 and frame is not None


def on_usr2(number, frame):
    seen["USR2"] += 1


def main():
    rounds = int(sys.argv[1])
    signal.signal(signal.SIGUSR1, on_usr1)
    signal.signal(signal.SIGUSR2, on_usr2)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    # All signals are blocked in this thread: it must be parked for the epoch nevertheless.
    done = threading.Event()

    def deaf():
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        done.wait()

    thread = threading.Thread(target=deaf)
    thread.start()
    for r in range(rounds):
        busy = sum(i * i for i in range(60000))
        pyheap.epoch()
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGHUP)
        assert seen == {"USR1": r + 1, "USR2": r + 1}, seen
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGTERM}
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGUSR1) is on_usr1
        if r % 20 == 0:
            print(r, busy, seen)
    done.set()
    thread.join()
    print("end", seen)


main()
