# SPDX-License-Identifier: MIT
"""LMDB: a database that is mapped, an epoch in the middle of a write transaction and of a reader's
cursor, and one between transactions; what it holds is what was committed, once.

live: rounds=40 epochs=2 needs=lmdb
"""
import shutil
import sys

import lmdb
import pyheap


def main():
    rounds = int(sys.argv[1])
    environment = lmdb.open("base", map_size=64 << 20, sync=False)
    total = 0
    for r in range(rounds):
        with environment.begin(write=True) as write:
            for i in range(30):
                write.put(b"%d" % ((r * 7 + i) % 200), b"%d" % r * 50)
            if r % 3 == 0:
                pyheap.epoch("in a transaction")
            count = write.get(b"count") or b"0"
            assert int(count) == r, (count, r)
            write.put(b"count", b"%d" % (r + 1))
        with environment.begin() as read, read.cursor() as cursor:
            cursor.first()
            before = sum(1 for _ in zip(range(10), cursor.iternext()))
            pyheap.epoch("a cursor half-way")
            total += before + sum(1 for _ in cursor.iternext(values=False))
            assert int(read.get(b"count")) == r + 1
        if r % 3:
            pyheap.epoch("between transactions")
        if r % 10 == 0:
            print(r, total, environment.stat()["entries"], environment.info()["last_txnid"])
    environment.close()
    with lmdb.open("base", readonly=True, lock=False) as environment, environment.begin() as read:
        print(int(read.get(b"count")) == rounds, read.stat()["entries"])
    shutil.rmtree("base")


main()
