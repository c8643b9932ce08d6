# SPDX-License-Identifier: MIT
"""joblib: worker processes of loky that wait at the epoch and are lost at the recovery: the next
call makes new ones; threads; results cached on disk.

live: rounds=8 needs=joblib
"""
import os
import sys
import warnings

import joblib
import pyheap
from joblib.externals.loky import get_reusable_executor

# What a program with loky has to do: the lost workers are not waited for.
if hasattr(pyheap, "on_restore"):
    pyheap.on_restore(lambda: get_reusable_executor().shutdown(wait=False, kill_workers=True))


def square(n):
    return n * n


def main():
    rounds = int(sys.argv[1])
    # A worker that is starting when its program is killed says on standard output that it fails.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    for r in range(rounds):
        done = joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(n, 2) for n in range(r, r + 6))
        assert done == [n * n for n in range(r, r + 6)]
        pyheap.epoch()  # two workers are idle
        threads = joblib.Parallel(n_jobs=3, backend="threading")
        assert threads(joblib.delayed(square)(n) for n in range(20)) == [n * n for n in range(20)]
        if r % 10 == 0:
            print(r, sum(done), file=out, flush=True)
    get_reusable_executor().shutdown(wait=True)


main()
