# SPDX-License-Identifier: MIT
"""Reads every object of a large heap and collects garbage, changing nothing.

    objects.py OBJECTS ROUNDS
"""
import gc
import json
import sys

import pyheap


class Item:
    __slots__ = ("name", "value", "next")

    def __init__(self, name, value, after):
        self.name, self.value, self.next = name, value, after


def build(count):
    """Objects of several kinds, a fifth each, that refer to each other."""
    items, last = [], None
    for i in range(count // 5):
        last = Item(f"item {i}", float(i), last)
        items.append((last, [i, last], {"i": i}))
    return items


def read(items):
    total = 0
    for item, pair, table in items:
        total += len(item.name) + item.value + pair[0] + table["i"]
        if item.next is not None:
            total += item.next.value
    return total


def main():
    count, rounds = (int(n) for n in sys.argv[1:])
    items = build(count)
    gc.collect()
    read(items)
    samples = []
    pyheap.epoch(wait=True)
    first = pyheap.status()
    for _ in range(rounds):
        sample = {}
        for name, step in (("read", lambda: read(items)), ("collect", gc.collect),
                           ("both", lambda: (read(items), gc.collect()))):
            step()
            pyheap.epoch(wait=True)
            status = pyheap.status()
            sample[name] = [status["pages_staged"], status["pages_written"]]
        samples.append(sample)
    print(json.dumps({"pages": first["pages_staged"], "samples": samples}))


main()
