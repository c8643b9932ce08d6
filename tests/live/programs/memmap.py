# SPDX-License-Identifier: MIT
"""numpy.memmap in all its modes, and arrays that numpy.load has mapped; what is counted in them is
counted once, before and after an epoch and in a mapping that is made after it.

live: rounds=60 needs=numpy
"""
import sys

import numpy as np

try:
    import pyheap
except ImportError:
    import plain as pyheap

ROWS = 5000


def main():
    made = np.memmap("made", dtype="f8", mode="w+", shape=(ROWS, 16))
    np.save("saved.npy", np.arange(ROWS * 8.0).reshape(ROWS, 8))
    reading = np.load("saved.npy", mmap_mode="r")
    updating = np.load("saved.npy", mmap_mode="r+")
    copying = np.load("saved.npy", mmap_mode="c")
    opened = np.lib.format.open_memmap("opened.npy", mode="w+", dtype="i4", shape=(ROWS,))
    for r in range(int(sys.argv[1])):
        row = r % ROWS
        made[row] = r
        updating[row, 0] = -r
        copying[row, 1] = r + 0.5
        opened[row] = r
        pyheap.epoch()
        first = max(0, row - 50)
        assert (made[first:row + 1, 3] == np.arange(r - (row - first), r + 1)).all()
        assert (reading[first:row + 1, 0] == -np.arange(r - (row - first), r + 1)).all()
        assert (copying[:row + 1, 1] % 1 == 0.5).all() and reading[row, 1] == row * 8 + 1
        assert opened[row] == r and opened.base is not None
        made[:, 5] += 1
        late = np.load("saved.npy", mmap_mode="r+")
        late[row, 3] *= 2
        late[row // 2, 4] += 1
        del late
        assert made[row, 5] == r + 1
        print(r, float(copying[:, 1].sum()))


main()
