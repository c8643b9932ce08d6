# SPDX-License-Identifier: MIT
"""Taichi: kernels that LLVM compiles while the program runs, on threads of its own; fields in memory
that it manages itself.

live: rounds=30 needs=taichi environment=ENABLE_TAICHI_HEADER_PRINT=0
"""
import sys

import numpy as np
import pyheap
import taichi as ti

ti.init(arch=ti.cpu, cpu_max_num_threads=2, offline_cache=False, log_level=ti.ERROR, random_seed=3)
N = 128
heat, then = ti.field(ti.f64, (N, N)), ti.field(ti.f64, (N, N))
cells = ti.root.pointer(ti.i, 64).dense(ti.i, 16)
sparse = ti.field(ti.i32)
cells.place(sparse)


@ti.kernel
def step():
    for i, j in heat:
        if 0 < i < N - 1 and 0 < j < N - 1:
            then[i, j] = heat[i, j] + 0.2 * (heat[i - 1, j] + heat[i + 1, j] + heat[i, j - 1]
                                             + heat[i, j + 1] - 4 * heat[i, j])
    for i, j in heat:
        heat[i, j] = then[i, j]


@ti.kernel
def count() -> ti.i32:
    total = 0
    for i in sparse:
        total += sparse[i]
    return total


def adder(value):
    """A kernel that nobody has compiled yet."""
    @ti.kernel
    def add():
        for i, j in then:
            heat[i, j] += ti.static(value)
    return add


def main():
    rounds = int(sys.argv[1])
    heat[N // 2, N // 2] = then[N // 2, N // 2] = 1000.0
    added, counted = 0, 0
    for r in range(rounds):
        for _ in range(3):
            step()
        pyheap.epoch()
        if r % 8 == 3:
            adder(1 + r % 5)()
            added += 1
        if sparse[r * 7 % 1024] == 0:
            counted += r + 1
            sparse[r * 7 % 1024] = r + 1
        assert count() == counted
        if r % 10 == 0:
            values = heat.to_numpy()
            assert np.isfinite(values).all()
            print(r, f"{values.sum():.6f} {values.max():.6f}", added, counted)


main()
