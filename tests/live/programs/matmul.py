# SPDX-License-Identifier: MIT
"""A matrix product in flight in a second thread, with OpenBLAS's own threads, at every epoch.

The numbers are small integers, so every order of summation gives the same bits.

live: rounds=20 needs=numpy
"""
import hashlib
import sys
import threading
import time

import numpy as np

try:
    import pyheap
except ImportError:
    import plain as pyheap


def multiply(rounds, result):
    n = 400
    a = (np.arange(n * n) % 7).astype(np.float64).reshape(n, n)
    b = (np.arange(n * n) % 5).astype(np.float64).reshape(n, n)
    for r in range(rounds):
        c = a @ b
        a = (c + r) % 8.0
        result.append(int(c[r % n].sum()))
    result.append(hashlib.sha256(a.tobytes()).hexdigest())


def main():
    rounds = int(sys.argv[1])
    result = []
    thread = threading.Thread(target=multiply, args=(rounds, result))
    thread.start()
    for _ in range(rounds):
        time.sleep(0.005)
        pyheap.epoch()
    thread.join()
    print(len(result), result[:5], result[-2:])
    print("sha256", result[-1])


main()
