# SPDX-License-Identifier: MIT
"""sqlite3 on files: in WAL mode and in autocommit, cursors half-way, a trigger, a function in Python;
two connections to one database; what is committed twice does no harm.

live: rounds=30
"""
import os
import sqlite3
import sys

import pyheap


def connect(name, journal):
    db = sqlite3.connect(name, isolation_level=None)
    assert db.execute(f"PRAGMA journal_mode={journal}").fetchone()[0] == journal
    db.create_function("twice", 1, lambda n: 2 * n)
    db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, m INTEGER)")
    return db


def main():
    rounds = int(sys.argv[1])
    kinds = {name: connect(f"{name}.db", name) for name in ("wal", "delete", "truncate")}
    second = sqlite3.connect("wal.db", isolation_level=None)
    for r in range(rounds):
        for db in kinds.values():
            db.execute("INSERT OR REPLACE INTO t VALUES (?, twice(?))", (r, r))
        reader = kinds["wal"].execute("SELECT n FROM t WHERE n <= ? ORDER BY n", (r,))
        reader.close()
        pyheap.epoch()
        for name, db in kinds.items():
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (rounds + r, -r))
            db.execute("COMMIT")
            found = db.execute("SELECT count(*) FROM t WHERE n <= ?", (r,)).fetchone()[0]
            assert found == r + 1, f"{name}: {found}"
        assert second.execute("SELECT m FROM t WHERE n = ?", (r,)).fetchone() == (2 * r,)
        if r % 10 == 0:
            kinds["wal"].execute("PRAGMA wal_checkpoint(TRUNCATE)")
            print(r, found)
    second.close()
    for name, db in kinds.items():
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*), sum(m) FROM t").fetchone() == (
            2 * rounds, sum(range(rounds)))
        db.close()
        os.unlink(f"{name}.db")
    print("ended")


main()
