# SPDX-License-Identifier: MIT
"""Saves a heap of MIB mebibytes and is killed; says a line as soon as it is back.

    recover.py MIB
"""
import os
import signal
import sys

import numpy as np

import pyheap

PAGE = 4096


def main():
    mebibytes = int(sys.argv[1])
    array = np.empty((mebibytes << 8, PAGE), dtype=np.uint8)
    array[:] = np.arange(PAGE, dtype=np.uint8)
    array[:, :8] = np.arange(mebibytes << 8, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    pyheap.epoch(wait=True)
    if pyheap.status()["recoveries"]:
        os.write(1, b"back\n")
        total = int(array[:, 100].sum(dtype=np.uint64))  # reads every page
        assert total == 100 * (mebibytes << 8), total
        os.write(1, b"whole\n")
    os.kill(os.getpid(), signal.SIGKILL)


main()
