# SPDX-License-Identifier: MIT
"""pyarrow: tables and slices, a Parquet writer and an IPC stream half-way, batches of a Parquet
reader, compute functions on its own pool of threads.

live: rounds=30 needs=pyarrow
"""
import os
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyheap

SCHEMA = pa.schema([("n", pa.int64()), ("word", pa.string())])


def table(r):
    numbers = list(range(r, r + 3000))
    return pa.table({"n": numbers, "word": [f"word {n % 97}" for n in numbers]}, schema=SCHEMA)


def main():
    rounds = int(sys.argv[1])
    os.mkdir("data")
    for part in range(4):
        pq.write_table(table(part * 3000), f"data/{part}.parquet")
    writer = pq.ParquetWriter("out.parquet", SCHEMA, compression="zstd")
    sink = pa.BufferOutputStream()
    stream = pa.ipc.new_stream(sink, SCHEMA)
    batches, seen = iter(()), 0
    for r in range(rounds):
        now = table(r)
        writer.write_table(now)
        view = now.slice(100, 500)
        batch = next(batches, None)
        if batch is None:
            batches = ds.dataset("data").scanner(batch_size=700, use_threads=True).to_batches()
            batch = next(batches)
        pyheap.epoch()
        seen += batch.num_rows
        stream.write_table(view)
        groups = now.group_by("word", use_threads=False).aggregate([("n", "sum")])
        assert pc.sum(groups["n_sum"]).as_py() == sum(range(r, r + 3000))
        assert view["n"][0].as_py() == r + 100
        ordered = pc.sort_indices(now, sort_keys=[("word", "descending"), ("n", "ascending")])
        if r % 10 == 0:
            print(r, seen > 0, ordered[0].as_py(), groups.num_rows)
    writer.close()
    stream.close()
    assert pq.read_table("out.parquet").num_rows == 3000 * rounds
    assert pa.ipc.open_stream(sink.getvalue()).read_all().num_rows == 500 * rounds
    os.unlink("out.parquet")
    print("ended")


main()
