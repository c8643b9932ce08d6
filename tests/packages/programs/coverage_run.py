# SPDX-License-Identifier: MIT
"""coverage: its C tracer (or sys.monitoring) measuring while epochs are taken.

live: rounds=40 needs=coverage
"""
import sys

import coverage
import pyheap


def measured(r):
    if r % 2:
        total = r
    else:
        total = -r
    pyheap.epoch()
    if r < 0:
        total += 1  # never
    return total


def main():
    rounds = int(sys.argv[1])
    measuring = coverage.Coverage(data_file=None, branch=True, include=[__file__])
    measuring.start()
    total = 0
    for r in range(rounds):
        total += measured(r)
    measuring.stop()
    _, statements, _, missing, _ = measuring.analysis2(__file__)
    source = open(__file__).read().splitlines()
    text = open(__file__).read().splitlines()
    first = text.index("def measured(r):") + 2
    inside = [n for n in statements if first <= n < first + 8]
    missed = [text[n - 1] for n in inside if n in missing]
    assert len(inside) == 7 and missed == ["        total += 1  # never"], (inside, missed)
    print(total, len(missed))


main()
