# SPDX-License-Identifier: MIT
"""Takes epochs with more and more threads.    threads.py ROUNDS COUNT..."""
import json
import sys
import threading
import time

import numpy as np

import pyheap

PAGES = 1000


def main():
    rounds, *counts = (int(n) for n in sys.argv[1:])
    array = np.zeros((PAGES, 4096), dtype=np.uint8)
    end = threading.Event()
    threads, samples = [], {}
    pyheap.epoch(wait=True)
    for count in counts:
        while len(threads) + 1 < count:
            threads.append(threading.Thread(target=end.wait))
            threads[-1].start()
        samples[count] = []
        for i in range(-1, rounds):
            array[:, 100] += 1
            started = time.perf_counter()
            pyheap.epoch()
            call = time.perf_counter() - started
            pyheap.sync()
            if i >= 0:
                samples[count].append({"call": call, "commit": pyheap.status()["commit"]})
    end.set()
    print(json.dumps(samples))


main()
