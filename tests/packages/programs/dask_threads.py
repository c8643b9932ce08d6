# SPDX-License-Identifier: MIT
"""dask: graphs computed by its threads, an epoch from one of them in the middle of a graph.

live: rounds=10 epochs=2 needs=dask,numpy
"""
import sys
import threading

import dask
import dask.array as da
import pyheap

once = threading.Lock()


def middle(block):
    if block[0, 0] == 0 and once.acquire(blocking=False):
        pyheap.epoch("in a thread of dask's")
    return block + 1


def main():
    rounds = int(sys.argv[1])
    dask.config.set(scheduler="threads", num_workers=4)
    lazy = da.arange(40_000, chunks=10_000).reshape(200, 200)
    for r in range(rounds):
        graph = lazy.map_blocks(middle, dtype=lazy.dtype, meta=lazy._meta)
        total = (graph + r).sum()
        assert total.compute() == sum(range(40_000)) + 40_000 * (r + 1)
        once.release()
        kept = dask.delayed(sum)([dask.delayed(pow)(n, 2) for n in range(10)])
        pyheap.epoch()
        assert kept.compute() == 285
        if r % 10 == 0:
            print(r, len(dict(graph.dask)) > 0)


main()
