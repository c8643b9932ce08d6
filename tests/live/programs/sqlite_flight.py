# SPDX-License-Identifier: MIT
"""A thread inside a long sqlite3 statement at every epoch, with sqlite's mutexes held.

live: rounds=30 exit=2
"""
import sqlite3
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap

LONG = """WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?)
          SELECT sum(x * x % 7) FROM n"""


def ask(database, rounds, answers):
    for r in range(rounds):
        answers.append(database.execute(LONG, (40000 + r,)).fetchone()[0])
        database.execute("INSERT INTO answer VALUES (?, ?)", (r, answers[-1]))
        database.commit()


def expected(rounds):
    """The same sums without a database."""
    total = sum(x * x % 7 for x in range(1, 40000))
    for r in range(rounds):
        total += (40000 + r) ** 2 % 7
        yield total


def main():
    rounds = int(sys.argv[1])
    shared = sqlite3.connect(":memory:", check_same_thread=False)
    shared.execute("CREATE TABLE answer (r INTEGER PRIMARY KEY, total INTEGER)")
    mine = sqlite3.connect(":memory:")
    mine.execute("CREATE TABLE word (n INTEGER, word TEXT)")
    answers = []
    thread = threading.Thread(target=ask, args=(shared, rounds, answers))
    thread.start()
    for r in range(rounds):
        mine.executemany("INSERT INTO word VALUES (?, ?)", ((i, f"{r}-{i}") for i in range(200)))
        mine.commit()
        # A cursor that is open over the epoch goes on where it was.
        cursor = mine.execute("SELECT n FROM word ORDER BY rowid DESC")
        first = cursor.fetchone()[0]
        pyheap.epoch()
        assert (first, cursor.fetchone()[0]) == (199, 198)
    thread.join()
    assert answers == list(expected(rounds))
    assert shared.execute("SELECT sum(total) FROM answer").fetchone()[0] == sum(answers)
    print("answers", len(answers), answers[-1])
    print("words", mine.execute("SELECT count(*), max(length(word)) FROM word").fetchone())


main()
sys.exit(2)
