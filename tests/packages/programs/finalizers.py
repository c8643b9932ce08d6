# SPDX-License-Identifier: MIT
"""Epochs from inside __del__, from a weakref's callback, from a gc callback, from a sort's key,
from __hash__ while a dictionary is resized, and at the limit of recursion.

live: rounds=30 epochs=6
"""
import gc
import sys
import weakref

import pyheap

taken = []


class Dying:
    def __del__(self):
        taken.append(pyheap.epoch("in __del__") >= 0)
        self.back = type(self)


class Key:
    def __init__(self, n, asks=False):
        self.n, self.asks = n, asks

    def __hash__(self):
        if self.asks:
            self.asks = False
            taken.append(pyheap.epoch("in __hash__") >= 0)
        return hash(self.n)

    def __eq__(self, other):
        return self.n == other.n


def on_collection(phase, info):
    if phase == "start" and armed:
        armed.clear()
        taken.append(pyheap.epoch("in a gc callback") >= 0)


armed = []


def key(n):
    if n == 50:
        taken.append(pyheap.epoch("in a sort") >= 0)
    return -n


def main():
    rounds = int(sys.argv[1])
    gc.disable()
    gc.callbacks.append(on_collection)
    for r in range(rounds):
        taken.clear()
        dying = Dying()
        del dying
        watched = Key(r)
        reference = weakref.ref(watched, lambda _: taken.append(pyheap.epoch("in weakref") >= 0))
        del watched
        assert reference() is None
        table = {Key(n, n == 77): n for n in range(200)}
        assert table[Key(77)] == 77
        assert sorted(range(100), key=key) == list(range(99, -1, -1))
        armed.append(1)
        gc.collect()
        assert not armed
        sys.setrecursionlimit(300)
        deep = catch_once()
        sys.setrecursionlimit(1000)
        assert deep and len(taken) == 6 and all(taken), taken
        if r % 10 == 0:
            print(r, len(table))


def catch_once():
    """The limit is met once only: the epoch at the limit needs a little room itself."""
    count = 0

    def down(n):
        nonlocal count
        if n == 0:
            count += 1
            taken.append(pyheap.epoch("near the limit") >= 0)
            return 0
        return 1 + down(n - 1)

    assert down(250) == 250
    try:
        down(10_000)
    except RecursionError:
        return count == 1
    return False


main()
