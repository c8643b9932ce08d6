# SPDX-License-Identifier: MIT
"""polars: frames, lazy queries on its pool of threads (Rust, with an allocator of its own),
categoricals, a frame that shares memory with NumPy.

live: rounds=30 needs=polars,numpy
"""
import sys

import numpy as np
import polars as pl
import pyheap


def main():
    rounds = int(sys.argv[1])
    words = pl.Series("word", [f"w{n % 50}" for n in range(5000)], dtype=pl.Categorical)
    kept = pl.DataFrame({"n": np.arange(5000), "x": np.linspace(0, 1, 5000)}).with_columns(words)
    lazy = (kept.lazy().filter(pl.col("n") % 3 == 0).group_by("word")
            .agg(pl.col("n").sum(), pl.col("x").max()).sort("n", descending=True))
    history = []
    for r in range(rounds):
        grown = kept.with_columns((pl.col("n") + r).alias("m"))
        pyheap.epoch()
        assert grown["m"].sum() == 5000 * 4999 // 2 + 5000 * r
        result = lazy.collect()
        assert result["n"].sum() == sum(range(0, 5000, 3))
        joined = grown.join(result, on="word", how="left")
        history.append(joined.height)
        ordered = grown.sort("x", descending=True).head(3)["n"].to_list()
        assert ordered == [4999, 4998, 4997]
        if r % 10 == 0:
            print(r, result.height, history[-1])
    print(sum(history))


main()
