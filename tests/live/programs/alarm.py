# SPDX-License-Identifier: MIT
"""An interval timer of the program goes on after recovery.

live: rounds=40
"""
import signal
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

ticks = 0


def on_alarm(number, frame):
    global ticks
    ticks += 1


def main():
    rounds = int(sys.argv[1])
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    for r in range(rounds):
        pyheap.epoch()
        wanted = ticks + 2
        while ticks < wanted:
            signal.pause()
        if r % 10 == 0:
            print(r)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("end")


main()
