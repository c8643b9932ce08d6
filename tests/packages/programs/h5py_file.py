# SPDX-License-Identifier: MIT
"""h5py: a file open for writing with datasets that grow, one open for reading, one in memory.

live: rounds=40 needs=h5py
"""
import sys

import h5py
import numpy as np
import pyheap


def main():
    rounds = int(sys.argv[1])
    with h5py.File("read.h5", "w") as file:
        file["numbers"] = np.arange(100_000).reshape(-1, 100)
    source = h5py.File("read.h5", "r")
    core = h5py.File("core.h5", "w", driver="core", backing_store=False)
    out = h5py.File("out.h5", "w")
    grows = out.create_dataset("grows", (0, 100), maxshape=(None, 100), chunks=(10, 100),
                               dtype="i8", compression="gzip")
    whole = core.create_dataset("whole", (rounds,), dtype="f8")
    total = 0
    for r in range(rounds):
        row = source["numbers"][r % 1000]
        whole[r] = row.mean()
        pyheap.epoch()
        grows.resize(r + 1, axis=0)
        grows[r] = row
        grows.attrs["last"] = r
        if r % 7 == 0:
            out.flush()
        total += int(source["numbers"][(r * 7) % 1000].sum())
        assert int(grows[r // 2][0]) == (r // 2) % 1000 * 100
        if r % 10 == 0:
            print(r, total, whole[r])
    out.close()
    with h5py.File("out.h5", "r") as file:
        found = file["grows"][:]
        assert found.shape == (rounds, 100) and file["grows"].attrs["last"] == rounds - 1
        assert np.array_equal(found[:, 0], np.arange(rounds) % 1000 * 100)
    print("total", total, float(whole[:].sum()))


main()
