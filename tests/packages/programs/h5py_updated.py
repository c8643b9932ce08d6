# SPDX-License-Identifier: MIT
"""h5py: datasets overwritten in place, made and deleted, in files held open, flushed and opened again.

live: rounds=150 needs=h5py
"""
import os
import sys
import time

import h5py
import numpy as np
import pyheap

RANDOM = np.random.default_rng(3)


class Updated:
    def __init__(self, version):
        self.name, self.version = f"{version}.h5", version
        self.file = h5py.File(self.name, "w", libver=version)
        self.file.create_dataset("rows", (200, 100), "f8", chunks=(10, 100), compression="gzip")
        self.rows, self.others = np.zeros((200, 100)), {}

    def change(self):
        for _ in range(RANDOM.integers(1, 20)):
            i, row = RANDOM.integers(200), RANDOM.random(100)
            self.file["rows"][i] = self.rows[i] = row
        name = f"other {RANDOM.integers(50)}"
        if self.others.pop(name, None) is not None:
            del self.file[name]
        else:
            self.file[name] = self.others[name] = RANDOM.random(RANDOM.integers(1, 3000))

    def open_again(self):
        self.file.close()
        self.file = h5py.File(self.name, "r+", libver=self.version)

    def look(self):
        assert np.array_equal(self.file["rows"][:], self.rows)
        assert sorted(self.file) == sorted([*self.others, "rows"])
        assert all(np.array_equal(self.file[name][:], what) for name, what in self.others.items())


def main():
    files = [Updated("earliest"), Updated("latest")]
    for r in range(int(sys.argv[1])):
        for updated in files:
            updated.change()
            if r % 3 == 0:
                updated.file.flush()
            if r % 5 == 2:
                updated.open_again()
        time.sleep(0.05)  # rounds, not speed: many make large files
        if r % 4 == 1:
            pyheap.epoch()
        for updated in files:
            updated.look()
        if r % 10 == 0:
            print(r, [len(updated.others) for updated in files], float(files[0].rows.sum()))
    for updated in files:
        updated.open_again()
        updated.look()
        os.remove(updated.name)  # the newer format has the time in it


main()
