# SPDX-License-Identifier: MIT
"""Dicts, lists, sets, strings and bytearrays that grow large and shrink, so pages are forgotten.

live: rounds=30
"""
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def main():
    rounds = int(sys.argv[1])
    table, numbers, blob, seen = {}, [], bytearray(), set()
    for r in range(rounds):
        if r % 10 == 9:
            # Everything goes; the pages come back as something else in the next rounds.
            assert len(table) == len(seen)
            table.clear()
            numbers.clear()
            seen.clear()
            del blob[:]
        for i in range(r * 1000, r * 1000 + 8000):
            table[i] = (i, str(i))
            seen.add(i)
            numbers.append(i * i)
        blob += b"%08d" % r * 50000
        pyheap.epoch(f"round {r}")
        assert all(table[i] == (i, str(i)) for i in table)
        assert seen == set(table)
        text = "".join(map(str, numbers[-2000:]))
        if r % 10 in (0, 8, 9):
            print(r, len(table), len(numbers), sum(numbers), len(blob), blob.count(b"1"),
                  hash(len(text)))
    print("end", len(table), len(blob))


main()
