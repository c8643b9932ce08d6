# SPDX-License-Identifier: MIT
"""What programs of several parts have in common; no program itself."""
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def go(parts):
    """In each round all parts bring something about, and find it so after the epoch."""
    for r in range(int(sys.argv[1])):
        for part in parts:
            part.fill(r)
        pyheap.epoch()
        busy = sum(i * i for i in range(40000))
        for part in parts:
            part.check(r)
        if r % 20 == 0:
            print(r, busy, flush=True)
