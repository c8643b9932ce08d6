# SPDX-License-Identifier: MIT
"""1 GiB changes between epochs, a tenth of it all the time.

    clocked.py MIB EPOCHS own        it takes the epochs itself
    clocked.py MIB EPOCHS clock      the keeper takes them (pyheap-run --every)
"""
import json
import sys
import time

import numpy as np

import pyheap

PATIENCE = 120  # seconds for one epoch


def main():
    mebibytes, epochs, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    array = np.ones((mebibytes << 8, 4096), dtype=np.uint8)
    hot = array[: len(array) // 10]
    samples = []
    pyheap.epoch(wait=True)
    for _ in range(epochs):
        pyheap.sync()
        before, began = pyheap.status()["epoch"], time.monotonic()
        array[:, 100] += 1
        if how == "own":
            hot[:, 200] += 1
            pyheap.epoch()
        while pyheap.status()["epoch"] == before:
            hot[:, 200] += 1
            if time.monotonic() - began > PATIENCE:
                sys.exit("no epoch came by the clock")
        status = pyheap.status()
        samples.append({"pause": status["pause"], "wait": status["wait"],
                        "staged": status["pages_staged"], "ahead": status["pages_ahead"]})
    print(json.dumps(samples))


main()
