# SPDX-License-Identifier: MIT
"""xarray and zarr: labelled arrays, a store on disk that is written chunk by chunk (zarr 3 has a
thread with an event loop of its own).

live: rounds=12 needs=xarray,zarr
"""
import shutil
import sys

import numpy as np
import pyheap
import xarray as xr
import zarr


def main():
    rounds = int(sys.argv[1])
    field = xr.DataArray(np.zeros((4, 30)), dims=("t", "x"), coords={"x": np.arange(30) / 10})
    store = zarr.open("store.zarr", mode="w", shape=(rounds, 100), chunks=(1, 50), dtype="i8")
    for r in range(rounds):
        field = field.roll(x=1) + xr.DataArray(np.arange(30), dims="x", coords={"x": field.x})
        store[r] = np.arange(100) + r
        pyheap.epoch()
        assert int(store[r // 2][7]) == r // 2 + 7
        mean = float(field.sel(x=1.5).mean("t"))
        groups = field.groupby(field.x > 1).sum()
        if r % 10 == 0:
            print(r, mean, float(groups.sum()))
    assert np.array_equal(store[:, 0], np.arange(rounds))
    shutil.rmtree("store.zarr")


main()
