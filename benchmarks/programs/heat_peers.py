# SPDX-License-Identifier: MIT
"""The computation of examples/heat.py, saved in the ways that people have without pyheap.

    heat_peers.py H*W*I --how HOW --every N

HOW: numpy, joblib, cloudpickle (the grid and the iteration, by hand), dill (the whole main
module: what must survive is global, what cannot be saved is not), outside (asks whoever
watches to save the process: the file `request` is made, and it waits for it to vanish). Each
save is durable: written to a new file, synced, renamed, the directory synced.
"""
import argparse
import hashlib
import os
import time

import numpy as np

grid = None
iteration = 0


def save_numpy(path):
    with open(path, "wb") as file:
        np.save(file, grid)
        np.save(file, np.array(iteration))


def save_joblib(path):
    import joblib

    joblib.dump((iteration, grid), path)


def save_cloudpickle(path):
    import cloudpickle

    with open(path, "wb") as file:
        cloudpickle.dump((iteration, grid), file, protocol=5)


def save_dill(path):
    import dill

    dill.dump_module(path)


def durable(save):
    """Whatever @p save writes, so that a crash at any moment leaves the old or the new one."""
    save("saved.new")
    fd = os.open("saved.new", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    os.rename("saved.new", "saved")
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def ask_outside():
    with open("request.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("request.new", "request")
    while os.path.exists("request"):
        time.sleep(0.001)


def iterate():
    """As in heat.py, so that both allocate alike. The views and the iterator stay out of what
    is saved; a program that was loaded would make them anew."""
    center, north, south = grid[1:-1, 1:-1], grid[:-2, 1:-1], grid[2:, 1:-1]
    east, west = grid[1:-1, 2:], grid[1:-1, :-2]
    while True:
        work = 0.2 * (center + north + east + west + south)
        delta = np.sum(np.abs(work - center))
        center[:] = work
        yield delta


def main():
    global grid, iteration
    parser = argparse.ArgumentParser()
    parser.add_argument("size")
    parser.add_argument("--how", required=True)
    parser.add_argument("--every", type=int, required=True)
    args = parser.parse_args()
    height, width, iterations = (int(n) for n in args.size.split("*"))
    save = globals().get(f"save_{args.how}")
    grid = np.zeros((height + 2, width + 2))
    grid[:, 0] = grid[:, -1] = grid[-1, :] = -273.15
    grid[0, :] = 40.0
    steps = iterate()
    while iteration < iterations:
        next(steps)
        iteration += 1
        if iteration % args.every == 0:
            if save:
                durable(save)
            else:
                ask_outside()
    print("sha256", hashlib.sha256(grid.tobytes()).hexdigest())


main()
