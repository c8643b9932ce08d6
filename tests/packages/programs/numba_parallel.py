# SPDX-License-Identifier: MIT
"""numba: a parallel loop on its threads, a compiled callback of C, a typed dictionary, a function
compiled after the recovery.

live: rounds=20 needs=numba
"""
import sys

import numba
import numpy as np
import pyheap
from numba import cfunc, njit, prange, typed


@njit(parallel=True)
def total(x):
    s = 0.0
    for i in prange(x.size):
        s += x[i] % 7
    return s


@njit
def count(table, keys):
    for key in keys:
        table[key] = table.get(key, 0) + 1


@cfunc("float64(float64)")
def square(x):
    return x * x


def main():
    rounds = int(sys.argv[1])
    numba.set_num_threads(2)
    table = typed.Dict.empty(numba.int64, numba.int64)
    x = np.arange(100_000, dtype=np.float64)
    total(x)
    count(table, np.arange(1))
    functions = {}
    for r in range(rounds):
        x += 1
        pyheap.epoch()
        assert total(x) == (x % 7).sum()
        count(table, np.arange(r + 1))
        assert len(table) == r + 1 and square.ctypes(r) == r * r
        if r % 20 == 0:
            factor = r
            functions[r] = njit(lambda n: n * factor)
        assert all(f(3) == 3 * key for key, f in functions.items())
        if r % 10 == 0:
            print(r, total(x), table[0])


main()
