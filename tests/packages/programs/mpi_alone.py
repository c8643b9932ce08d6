# SPDX-License-Identifier: MIT
"""mpi4py: a program of one rank, with MPICH: sends to itself that are pending at the epoch, windows,
collectives, files.

live: rounds=40 needs=mpi4py.MPI environment=UCX_TLS=self
"""
import sys

import numpy as np
import pyheap
from mpi4py import MPI


def main():
    rounds = int(sys.argv[1])
    world = MPI.COMM_WORLD
    mine = world.Dup()
    memory = np.zeros(10)
    window = MPI.Win.Create(memory, comm=mine)
    file = MPI.File.Open(mine, "values", MPI.MODE_CREATE | MPI.MODE_RDWR)
    for r in range(rounds):
        into, out = np.zeros(1000), np.arange(1000.0) + r
        pending = mine.Irecv(into, source=0, tag=r)
        sent = mine.Isend(out, dest=0, tag=r)
        file.Write_at(r * 8, np.array([float(r)]))
        pyheap.epoch()  # neither has been waited for
        MPI.Request.Waitall([pending, sent])
        assert np.array_equal(into, out)
        window.Lock(0)
        window.Accumulate(np.ones(10), 0)
        window.Unlock(0)
        total = mine.allreduce(r)
        assert total == r and memory[3] == r + 1
        if r % 10 == 0:
            print(r, mine.bcast({"total": total}), world.Get_size())
    file.Close()
    window.Free()


main()
