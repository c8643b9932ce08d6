# SPDX-License-Identifier: MIT
"""TileDB: arrays in many files, written and read on threads of its own; a reader of an older moment and
a query that is half done.

live: rounds=20 needs=tiledb,numpy
"""
import shutil
import sys

import numpy as np
import pyheap
import tiledb


def main():
    rounds = int(sys.argv[1])
    context = tiledb.Ctx({"sm.compute_concurrency_level": 2, "sm.io_concurrency_level": 2})
    domain = tiledb.Domain(tiledb.Dim("x", domain=(0, 199), tile=50, dtype="i8", ctx=context),
                           ctx=context)
    values = tiledb.Attr("v", dtype="f8", filters=[tiledb.ZstdFilter()], ctx=context)
    tiledb.Array.create("dense", tiledb.ArraySchema(domain=domain, attrs=[values], ctx=context))
    tiledb.Array.create("sparse", tiledb.ArraySchema(domain=domain, attrs=[values], sparse=True,
                                                     ctx=context))
    mirror = np.zeros(200)
    with tiledb.open("dense", "w", ctx=context) as array:
        array[:] = mirror
    reader, then = tiledb.open("dense", ctx=context), mirror.copy()
    for r in range(rounds):
        at = r * 13 % 190
        mirror[at:at + 10] = r + np.arange(10)
        writer = tiledb.open("dense", "w", ctx=context)
        pyheap.epoch()  # one reads, one is about to write
        writer[at:at + 10] = mirror[at:at + 10]
        writer.close()
        assert np.array_equal(reader[:]["v"], then)
        with tiledb.open("sparse", "w", ctx=context) as other:
            other[np.array([r * 7 % 200])] = np.array([float(r)])
        if r % 5 == 0:
            reader.close()
            reader, then = tiledb.open("dense", ctx=context), mirror.copy()
            with tiledb.open("sparse", ctx=context) as other:
                found = other[:]["v"]
            print(r, len(found), float(mirror.sum()))
        if r % 10 == 9:
            reader.close()  # vacuuming removes the files that it reads
            tiledb.consolidate("dense", ctx=context)
            tiledb.vacuum("dense", ctx=context)
            reader, then = tiledb.open("dense", ctx=context), mirror.copy()
    reader.close()
    for name in ("dense", "sparse"):
        shutil.rmtree(name)


main()
