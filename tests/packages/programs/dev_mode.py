# SPDX-License-Identifier: MIT
"""Development mode: debug hooks on the allocators, asyncio's debug mode, faulthandler, warnings of
resources that are not closed; pending finalizers and weak references in garbage.

live: rounds=20 epochs=2 environment=PYTHONDEVMODE=1
"""
import asyncio
import faulthandler
import gc
import sys
import warnings
import weakref

import pyheap

events = []


class Node:
    def __init__(self, n):
        self.n, self.self = n, self
        self.reference = weakref.ref(self)

    def __del__(self):
        events.append(self.n)


async def turn(r):
    assert asyncio.get_running_loop().get_debug()
    task = asyncio.ensure_future(asyncio.sleep(0.001, r))
    pyheap.epoch("in a loop in debug mode")
    return await task


def main():
    rounds = int(sys.argv[1])
    assert sys.flags.dev_mode and faulthandler.is_enabled()
    gc.disable()
    for r in range(rounds):
        events.clear()
        nodes = [Node(n) for n in range(20)]
        called = []
        references = [weakref.ref(node, lambda _: called.append(1)) for node in nodes]
        finalizers = [weakref.finalize(node, called.append, 2) for node in nodes]
        del nodes
        pyheap.epoch()  # the garbage, its finalizers and callbacks pend
        assert events == [] and all(f.alive for f in finalizers)
        gc.collect()
        assert sorted(events) == list(range(20)) and sorted(called) == [1] * 20 + [2] * 20
        assert all(reference() is None for reference in references)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            open("/dev/null")
        assert [w.category for w in warned] == [ResourceWarning]
        assert asyncio.run(turn(r)) == r
        if r % 10 == 0:
            print(r, len(events), len(called))


main()
