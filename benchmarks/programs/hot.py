# SPDX-License-Identifier: MIT
"""Rewrites an array after an epoch, and again without one; then lets it rest.

    hot.py MIB ROUNDS touch|rewrite
"""
import json
import re
import sys
import time

import numpy as np

import pyheap


def huge_kib():
    """Anonymous memory in huge pages."""
    with open("/proc/self/smaps_rollup") as file:
        return int(re.search(r"AnonHugePages:\s+(\d+)", file.read())[1])


def main():
    mebibytes, rounds, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    array = np.ones((mebibytes << 8, 512), dtype=np.uint64)
    if how == "touch":
        array[:, :8] = 2
    target = array[:, 0] if how == "touch" else array

    def rewrite():
        started = time.perf_counter()
        np.add(target, 1, out=target)
        return time.perf_counter() - started

    before = huge_kib()
    rewrite()
    plain = [rewrite() for _ in range(3)]
    samples = []
    pyheap.epoch(wait=True)
    for _ in range(rounds):
        rewrite()
        pyheap.epoch(wait=True)
        after = rewrite()
        again = rewrite()
        samples.append((after, again))
    rests = []
    for _ in range(5):
        pyheap.epoch(wait=True)
        status = pyheap.status()
        rests.append((status["pages_staged"], status["pause"]))
    print(json.dumps({"pages": mebibytes << 8, "before_any_epoch": plain, "samples": samples,
                      "rests": rests, "huge_before": before, "huge_after": huge_kib()}))


main()
