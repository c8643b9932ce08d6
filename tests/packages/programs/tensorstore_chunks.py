# SPDX-License-Identifier: MIT
"""TensorStore: threads of C++ that write chunks of an array to files while the program goes on, a
transaction that is open, futures.

live: rounds=20 needs=tensorstore,numpy
"""
import shutil
import sys

import numpy as np
import pyheap
import tensorstore as ts


def main():
    rounds = int(sys.argv[1])
    store = ts.open({"driver": "zarr", "kvstore": {"driver": "file", "path": "store.zarr/"}},
                    dtype=ts.int64, shape=[rounds, 100], chunk_layout=ts.ChunkLayout(
                        chunk_shape=[1, 50]), create=True, delete_existing=True).result()
    memory = ts.open({"driver": "zarr", "kvstore": {"driver": "memory"}}, dtype=ts.int64,
                     shape=[100], create=True).result()
    for r in range(rounds):
        futures = [store[r].write(np.arange(100) + r), memory.write(np.arange(100) * r)]
        pyheap.epoch()
        for future in futures:
            future.result()
        transaction = ts.Transaction()
        memory.with_transaction(transaction)[3] = -1
        assert int(memory[3].read().result()) == 3 * r
        transaction.commit_sync()
        assert int(memory[3].read().result()) == -1
        assert int(store[r // 2, 7].read().result()) == r // 2 + 7
        if r % 10 == 0:
            print(r, int(memory.read().result().sum()), int(store[r].read().result().sum()))
    assert np.array_equal(store[:, 0].read().result(), np.arange(rounds))
    shutil.rmtree("store.zarr")


main()
