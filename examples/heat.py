#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""heat.py - the heat equation on a plate, by Jacobi's method (as in the Benchpress benchmark)

    heat.py H*W*I [--dtype float32|float64] [--epoch-every N] [--out FILE]

A plate of H x W points starts at 0 degrees; its left, right and bottom edges are held at
-273.15, its top edge at 40. Each iteration replaces every point by the mean of itself and its
four neighbours, until the grid as a whole changes by at most 0.005 or I iterations are done.

Under pyheap-run every N-th iteration (default: each one) ends with an epoch, and after a kill
pyheap-recover goes on from the last of them. In plain python3 pyheap is a no-op. Either way
the last line is the SHA-256 of the grid's bytes, so that two runs can be compared.
"""
import argparse
import hashlib

import numpy as np

try:
    import pyheap
except ImportError:

    class pyheap:
        """What pyheap is in plain Python: nothing."""

        @staticmethod
        def epoch(label=None, wait=False):
            return 0


COLDEST = -273.15
HOTTEST = 40.0
STEADY = 0.005


def make_grid(height, width, dtype):
    """A plate with its edges; the top row comes last, so it owns the upper corners."""
    grid = np.zeros((height + 2, width + 2), dtype=dtype)
    grid[:, 0] = COLDEST
    grid[:, -1] = COLDEST
    grid[-1, :] = COLDEST
    grid[0, :] = HOTTEST
    return grid


def iterate(grid):
    """Improve the grid for ever; each step yields by how much all points changed together."""
    center = grid[1:-1, 1:-1]
    north = grid[:-2, 1:-1]
    south = grid[2:, 1:-1]
    east = grid[1:-1, 2:]
    west = grid[1:-1, :-2]
    while True:
        work = 0.2 * (center + north + east + west + south)
        delta = np.sum(np.abs(work - center))
        center[:] = work
        yield delta


def solve(grid, iterations, epoch_every):
    """Iterate until steady or until the iterations are used up."""
    report_every = max(1, iterations // 10)
    steps = iterate(grid)
    for i in range(1, iterations + 1):
        delta = next(steps)
        steady = delta <= STEADY
        if steady or i == iterations or i % report_every == 0:
            print(f"iteration {i}  delta {delta:.6g}")
        if steady:
            break
        if epoch_every and i % epoch_every == 0:
            pyheap.epoch(f"iteration {i}")


def parse_arguments():
    parser = argparse.ArgumentParser(description="The heat equation by Jacobi's method.")
    parser.add_argument("size", metavar="H*W*I", help="height, width, iterations: 1000*1000*100")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument(
        "--epoch-every",
        metavar="N",
        type=int,
        default=1,
        help="iterations from one epoch to the next (default 1; 0: no epochs)",
    )
    parser.add_argument("--out", metavar="FILE", help="save the final grid here, as numpy.save does")
    args = parser.parse_args()
    try:
        args.height, args.width, args.iterations = (int(n) for n in args.size.split("*"))
        if min(args.height, args.width, args.iterations) < 1 or args.epoch_every < 0:
            raise ValueError
    except ValueError:
        parser.error("give three positive numbers: H*W*I, and no negative --epoch-every")
    return args


def main():
    args = parse_arguments()
    grid = make_grid(args.height, args.width, args.dtype)
    solve(grid, args.iterations, args.epoch_every)
    if args.out:
        with open(args.out, "wb") as file:
            np.save(file, grid)
    print("sha256", hashlib.sha256(grid.tobytes()).hexdigest())


if __name__ == "__main__":
    main()
