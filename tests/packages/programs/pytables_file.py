# SPDX-License-Identifier: MIT
"""PyTables: a file with a table that grows, an index, a compressed array, a query half-way.

live: rounds=30 needs=tables
"""
import os
import sys

import numpy as np
import pyheap
import tables


class Particle(tables.IsDescription):
    n = tables.Int64Col()
    energy = tables.Float64Col()
    name = tables.StringCol(16)


def main():
    rounds = int(sys.argv[1])
    file = tables.open_file("out.h5", "w")
    pyheap.keep_file(file.fileno())  # a flush may leave it shorter than it was at the epoch
    table = file.create_table("/", "particles", Particle)
    table.cols.n.create_index()
    array = file.create_earray("/", "array", tables.Float64Atom(), (0, 100),
                               filters=tables.Filters(5, "zlib"))
    for r in range(rounds):
        row = table.row
        for i in range(50):
            row["n"], row["energy"], row["name"] = r * 50 + i, i / 7, f"p{i}"
            row.append()
            if i == 25:
                pyheap.epoch()  # with rows in the buffer
        array.append(np.full((1, 100), float(r)))
        table.flush()
        some = table.where("n >= low", {"low": r * 50})
        assert next(some)["n"] == r * 50 and sum(1 for _ in some) == 49
        assert array[r // 2, 0] == r // 2
        if r % 10 == 0:
            print(r, table.nrows, array.shape)
    file.close()
    with tables.open_file("out.h5") as file:
        assert np.array_equal(file.root.particles.col("n"), np.arange(50 * rounds))
    os.unlink("out.h5")


main()
