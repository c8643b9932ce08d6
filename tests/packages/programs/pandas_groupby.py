# SPDX-License-Identifier: MIT
"""pandas: a groupby half-way through its groups, a rolling window, categories, dates, a CSV
reader that hands out chunks.

live: rounds=40 needs=pandas
"""
import io
import sys

import numpy as np
import pandas as pd
import pyheap

ROWS = 4000


def frame():
    dice = np.random.default_rng(7)
    return pd.DataFrame({"key": pd.Categorical.from_codes(dice.integers(0, 5, ROWS), list("abcde")),
                         "word": [f"w{i % 13}" for i in range(ROWS)],
                         "when": pd.date_range("2024-01-01", periods=ROWS, freq="min"),
                         "value": dice.integers(0, 100, ROWS)})


def endless(make):
    while True:
        yield from make()


def main():
    rounds = int(sys.argv[1])
    table = frame()
    text = table.to_csv(index=False)
    groups = endless(lambda: table.groupby("key", observed=True))
    chunks = endless(lambda: pd.read_csv(io.StringIO(text), chunksize=500))
    total = 0
    for r in range(rounds):
        key, group = next(groups)
        chunk = next(chunks)
        sums = group.groupby("word")["value"].apply(lambda part: int(part.sum()) + r)
        pyheap.epoch()
        assert int(sums.sum()) == int(group["value"].sum()) + r * len(sums)
        first = ROWS // 8 * (r % 8)
        assert list(chunk["value"]) == list(table["value"][first:first + 500])
        mean = table.set_index("when")["value"].rolling("2h").mean().iloc[-1]
        table.loc[r % ROWS, "value"] += 0
        joined = group.merge(sums.rename("sum"), left_on="word", right_index=True)
        total += int(joined["sum"].sum()) + int(mean)
        if r % 10 == 0:
            print(r, key, len(group), total)
    print("total", total)


main()
