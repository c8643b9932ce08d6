# SPDX-License-Identifier: MIT
"""LightGBM: a booster that learns round by round on OpenMP's threads.

live: rounds=20 needs=lightgbm
"""
import sys

import lightgbm
import numpy as np
import pyheap


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(3)
    x = random.normal(size=(500, 8))
    y = x[:, 0] * x[:, 1] + x[:, 2]
    data = lightgbm.Dataset(x, y)
    booster = lightgbm.Booster({"num_threads": 2, "verbose": -1, "seed": 1, "num_leaves": 7,
                                "deterministic": True, "force_row_wise": True}, data)
    for r in range(rounds):
        if booster.current_iteration() >= 100:
            booster.rollback_one_iter()
        booster.update()
        pyheap.epoch()
        error = float(np.mean((booster.predict(x, num_threads=2) - y) ** 2))
        assert booster.num_trees() == min(r + 1, 100)
        if r % 10 == 0:
            print(r, f"{error:.6f}")


main()
