# SPDX-License-Identifier: MIT
"""RocksDB: a store with threads of its own that write, merge and remove files, an iterator and a
snapshot that live over epochs.

live: rounds=40 needs=rocksdict
"""
import shutil
import sys

import pyheap
import rocksdict


def main():
    rounds = int(sys.argv[1])
    options = rocksdict.Options()
    options.set_write_buffer_size(64 << 10)
    options.set_max_background_jobs(2)
    options.set_level_zero_file_num_compaction_trigger(2)
    store = rocksdict.Rdict("store", options)
    keys = iter(())
    walked = 0
    for r in range(rounds):
        batch = rocksdict.WriteBatch(raw_mode=False)
        for i in range(100):
            batch.put((r * 37 + i * 11) % 2000, bytes([r % 256]) * 300)
        store.write(batch)
        snapshot = store.snapshot()
        store["round"] = r
        pyheap.epoch()
        assert store["round"] == r and (r == 0 or snapshot["round"] == r - 1)
        assert store[(r * 37) % 2000] == bytes([r % 256]) * 300
        for _ in range(20):
            key = next(keys, None)
            if key is None:
                keys = store.keys()
                key = next(keys)
            walked += 1
        if r % 7 == 0:
            store.flush()
        if r % 10 == 0:
            print(r, key, walked, sum(1 for _ in store.keys()))
    del snapshot, keys
    store.close()
    again = rocksdict.Rdict("store")
    assert again["round"] == rounds - 1
    again.close()
    shutil.rmtree("store")


main()
