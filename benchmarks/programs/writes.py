# SPDX-License-Identifier: MIT
"""Many epochs with scattered changes; what the pool grows to and the keeper writes.

    writes.py MIB EPOCHS PAGES_PER_EPOCH uniform|hot POOL
"""
import json
import os
import sys
import time

import numpy as np

import pyheap



def written(keeper):
    with open(f"/proc/{keeper}/io") as file:
        return int(dict(line.split(":") for line in file)["write_bytes"])


def main():
    mebibytes, epochs, count, how, pool = sys.argv[1:]
    pages, epochs, count = int(mebibytes) << 8, int(epochs), int(count)
    keeper = os.getppid()
    random = np.random.default_rng(1)
    array = np.ones((pages, 4096), dtype=np.uint8)
    array[:, :8] = np.arange(pages, dtype=np.uint64).view(np.uint8).reshape(-1, 8)

    def change():
        if how == "uniform":
            some = random.integers(0, pages, count)
        else:  # nine of ten writes go to a tenth of the pages
            hot = random.random(count) < 0.9
            some = np.where(hot, random.integers(0, pages // 10, count),
                            random.integers(0, pages, count))
        array[some, 100] += 1
        return len(np.unique(some))

    pyheap.epoch(wait=True)
    live = pyheap.status()["pages_staged"] * 4096  # the first epoch stages all that is present
    sizes, start, counted = [], None, 0
    for i in range(epochs):
        if i == epochs // 4:
            os.sync()
            start = written(keeper), pyheap.status()["total_pages_written"]
        changed = change()
        pyheap.epoch(wait=True)
        sizes.append(os.stat(pool).st_blocks * 512)
    time.sleep(1)  # migration in the background may still be at it
    os.sync()
    status = pyheap.status()
    print(json.dumps({"bytes": written(keeper) - start[0],
                      "pages": status["total_pages_written"] - start[1],
                      "sizes": sizes, "last": os.stat(pool).st_blocks * 512,
                      "live": live, "epoch_pages": status["pages_written"],
                      "changed": changed}))


main()
