# SPDX-License-Identifier: MIT
"""Objects by the hundred thousand, in cycles, with weak references, finalizers and the gc.

live: rounds=60
"""
import gc
import sys
import weakref

try:
    import pyheap
except ImportError:
    import plain as pyheap

finalized = 0


class Node:
    __slots__ = ("other", "payload", "__weakref__")

    def __init__(self, payload):
        self.payload = payload

    def __del__(self):
        global finalized
        finalized += 1


def ring(n, r):
    nodes = [Node((r, i, str(i) * (i % 5))) for i in range(n)]
    for left, right in zip(nodes, nodes[1:] + nodes[:1]):
        left.other = right
    return nodes[0]


def length(first):
    n, node = 1, first.other
    while node is not first:
        n, node = n + 1, node.other
    return n


def main():
    rounds = int(sys.argv[1])
    gc.disable()
    rings, watched = {}, weakref.WeakValueDictionary()
    for r in range(rounds):
        rings[r] = watched[r] = ring(1000 + r % 17, r)
        if r >= 20:
            del rings[r - 20]
        pyheap.epoch()
        if r % 5 == 4:
            gc.collect()
            assert sorted(watched) == sorted(rings), "dead rings live, or living ones died"
        total = sum(length(first) for first in rings.values())
        if r % 20 == 0:
            print(r, total, finalized, len(watched))
    rings.clear()
    gc.collect()
    assert not watched and finalized == sum(1000 + r % 17 for r in range(rounds))
    print("finalized", finalized)


main()
