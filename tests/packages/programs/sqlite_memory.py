# SPDX-License-Identifier: MIT
"""sqlite3 in memory: an open transaction, cursors half-way, functions and aggregates in Python.

live: rounds=40
"""
import itertools
import sqlite3
import sys

import pyheap


class Product:
    def __init__(self):
        self.value = 1

    def step(self, n):
        self.value = self.value * (n + 1) % 1000003

    def finalize(self):
        return self.value


def main():
    rounds = int(sys.argv[1])
    db = sqlite3.connect(":memory:")
    inside = 0

    def odd(n):
        nonlocal inside
        inside += 1
        if inside == 20:
            pyheap.epoch("inside a query")
        return n % 2

    db.create_function("odd", 1, odd)
    db.create_aggregate("product", 1, Product)
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
    db.executemany("INSERT INTO t VALUES (?, ?)", ((n, f"text {n}") for n in range(500)))
    db.commit()
    other = sqlite3.connect(":memory:")
    other.executescript(";".join(db.iterdump()))
    rows = (row for _ in itertools.repeat(0)
            for row in other.execute("SELECT n FROM t ORDER BY n"))
    for r in range(rounds):
        inside = 0
        db.execute("INSERT INTO t VALUES (?, ?)", (10_000 + r, "new"))
        count, product = db.execute("SELECT count(*), product(n) FROM t WHERE odd(n)").fetchone()
        row = next(rows)
        if r % 3 == 0:
            db.rollback()
        elif r % 3 == 1:
            db.commit()
        if r % 10 == 0:
            print(r, count, product, row[0])
    db.commit()
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    print(db.execute("SELECT count(*), sum(n) FROM t").fetchone())


main()
