# SPDX-License-Identifier: MIT
"""Kuzu: a database of graphs in files, with terabytes of addresses reserved and threads of its own; an
epoch in the middle of a transaction and of a result.

live: rounds=20 epochs=2 needs=kuzu
"""
import pathlib
import sys

import kuzu
import pyheap


def main():
    rounds = int(sys.argv[1])
    database = kuzu.Database("graph.kuzu", buffer_pool_size=64 << 20)
    connection = kuzu.Connection(database, num_threads=2)
    connection.execute("CREATE NODE TABLE Town(id INT64 PRIMARY KEY, name STRING)")
    connection.execute("CREATE REL TABLE Road(FROM Town TO Town, length INT64)")
    connection.execute("CREATE (:Town {id: 0, name: 'first'})")
    for r in range(rounds):
        connection.execute("BEGIN TRANSACTION")
        connection.execute("CREATE (:Town {id: $id, name: $name})",
                           {"id": r + 1, "name": f"town {r}"})
        pyheap.epoch("in a transaction")
        connection.execute("MATCH (a:Town {id: $a}), (b:Town {id: $b}) "
                           "CREATE (a)-[:Road {length: $n}]->(b)",
                           {"a": r // 2, "b": r + 1, "n": r % 7})
        connection.execute("COMMIT")
        found = connection.execute("MATCH (a:Town)-[r:Road]->(b:Town) "
                                   "RETURN a.id, b.id, r.length ORDER BY b.id")
        roads = [found.get_next() for _ in range((r + 1) // 2)]
        pyheap.epoch("a result half fetched")
        while found.has_next():
            roads.append(found.get_next())
        assert roads == [[i // 2, i + 1, i % 7] for i in range(r + 1)], roads[-3:]
        if r % 10 == 9:
            connection.execute("CHECKPOINT")
        if r % 10 == 0:
            total = connection.execute("MATCH (:Town {id: 0})-[r:Road*1..3]->(b:Town) "
                                       "RETURN count(*)").get_next()[0]
            print(r, total)
    connection.close()
    database.close()
    for file in pathlib.Path().glob("graph.kuzu*"):
        file.unlink()


main()
