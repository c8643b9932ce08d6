# SPDX-License-Identifier: MIT
"""duckdb: a database in memory, queries on its threads, a result half fetched, a prepared statement,
an open transaction.

live: rounds=30 needs=duckdb
"""
import sys

import duckdb
import pyheap


def main():
    rounds = int(sys.argv[1])
    db = duckdb.connect(":memory:")
    db.execute("SET threads = 3")
    db.execute("CREATE TABLE t AS SELECT i, i % 100 AS g, 'word ' || (i % 77) AS w "
               "FROM range(200000) s(i)")
    db.execute("CREATE TABLE log (r INTEGER, total HUGEINT)")
    reader = db.cursor()
    rest = 0
    for r in range(rounds):
        if rest == 0:
            reader.execute("SELECT i FROM t ORDER BY i")
            rest = 20
        head = reader.fetchmany(1000)
        db.begin()
        total, = db.execute("SELECT sum(i) FROM t WHERE g = ?", [r % 100]).fetchone()
        db.execute("INSERT INTO log VALUES (?, ?)", [r, total])
        pyheap.epoch()  # with a transaction open and a result half fetched
        if r % 5 == 4:
            db.rollback()
        else:
            db.commit()
        rest -= 1
        assert head[0][0] == (19 - rest) * 1000, head[0]
        count, = db.execute("SELECT count(*) FROM log").fetchone()
        assert count == r + 1 - (r + 1) // 5, count
        if r % 10 == 0:
            words = db.execute("SELECT w, count(*), avg(i) FROM t GROUP BY w ORDER BY w LIMIT 2")
            print(r, total, words.fetchall())
    print("ended")


main()
