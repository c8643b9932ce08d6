# SPDX-License-Identifier: MIT
"""Numba: functions compiled before the first epoch and after each recovery, a parallel loop, a
C callback made of one.

live: rounds=20 needs=numba
"""
import ctypes
import sys

import numba
import numpy as np
import pyheap


@numba.njit
def collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@numba.njit(parallel=True)
def spread(values):
    total = 0.0
    for i in numba.prange(values.size):
        total += values[i] * 2.0
    return total


@numba.cfunc("int64(int64)")
def plus_one(n):
    return n + 1


def compiled_now(r):
    """A function that nobody has compiled yet."""
    return numba.njit(eval(f"lambda a: a * {r} + {r % 7}"))


def main():
    rounds = int(sys.argv[1])
    values = np.arange(1000.0)
    kept = [compiled_now(0)]
    kept[0](1)
    total = 0
    for r in range(rounds):
        pyheap.epoch()
        total += sum(collatz(n) for n in range(1, 200 + r % 50))
        assert spread(values) == 999000.0
        assert plus_one.ctypes(r) == r + 1
        if r % 8 == 0 and len(kept) < 12:
            kept.append(compiled_now(r))
        for function in kept:
            total += function(r)
        if r % 10 == 0:
            print(r, total)
    print("total", total, len(kept))
    assert ctypes.cast(plus_one.address, ctypes.c_void_p).value


main()
