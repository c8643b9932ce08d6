# SPDX-License-Identifier: MIT
"""concurrent.futures with work in flight at each epoch, epochs from workers, NumPy's BLAS threads,
thread-locals.

live: rounds=40 epochs=2 needs=numpy
"""
import concurrent.futures as futures
import sys
import threading
import zlib

import numpy as np
import pyheap

local = threading.local()


def work(n):
    """Counts its calls in this thread; some of it runs without the GIL."""
    local.calls = getattr(local, "calls", 0) + 1
    local.name = threading.current_thread().name
    data = bytes(i % 251 for i in range(1000)) * 50
    result = zlib.crc32(data, n)
    assert local.name == threading.current_thread().name
    return result


def main():
    rounds = int(sys.argv[1])
    dice = np.random.default_rng(3)
    matrix = dice.random((300, 300))
    total = 0
    with futures.ThreadPoolExecutor(4) as pool, futures.ThreadPoolExecutor(1) as single:
        for r in range(rounds):
            flying = [pool.submit(work, r * 10 + i) for i in range(10)]
            product = single.submit(np.matmul, matrix, matrix)
            pyheap.epoch("work in flight")
            done, waiting = futures.wait(flying, timeout=60)
            assert not waiting and len(done) == 10
            total = (total * 31 + sum(f.result() for f in flying)) % (2**61 - 1)
            assert pool.submit(pyheap.epoch, "in a worker").result() >= 0
            assert np.allclose(product.result()[0], matrix[0] @ matrix)
            if r % 10 == 0:
                print(r, total)
    print("total", total)


main()
