# SPDX-License-Identifier: MIT
"""numexpr: its virtual machine's threads, expressions compiled before and after the recovery.

live: rounds=60 needs=numexpr
"""
import sys

import numexpr
import numpy as np
import pyheap

numexpr.set_num_threads(3)


def main():
    rounds = int(sys.argv[1])
    a = np.linspace(0, 1, 200_000)
    state = np.zeros_like(a)
    compiled = numexpr.NumExpr("sin(a) * b + 1", signature=[("a", np.float64), ("b", np.float64)])
    for r in range(rounds):
        state = numexpr.evaluate("0.5 * state + a ** 2 - a")
        pyheap.epoch()  # the threads wait at their barrier
        assert np.allclose(compiled(a, state), np.sin(a) * state + 1)
        if r % 10 == 0:
            value = float(numexpr.evaluate(f"sum(where(a > 0.5, state, {r}))"))
            print(r, f"{value:.6f}")


main()
