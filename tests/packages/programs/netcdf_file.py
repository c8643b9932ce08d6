# SPDX-License-Identifier: MIT
"""netCDF4: a file that is written record by record and read while it is open, its dimension
without limit, compressed chunks, attributes.

live: rounds=40 needs=netCDF4
"""
import sys

import netCDF4
import numpy as np
import pyheap


def main():
    rounds = int(sys.argv[1])
    file = netCDF4.Dataset("field.nc", "w")
    file.createDimension("time", None)
    file.createDimension("x", 200)
    file.createVariable("t", "f8", ("time",)).units = "seconds since 2000-01-01"
    field = file.createVariable("field", "f4", ("time", "x"), zlib=True, chunksizes=(4, 100))
    for r in range(rounds):
        file["t"][r] = r * 0.5
        field[r] = np.arange(200) + r
        pyheap.epoch()  # chunks in the library's cache are not in the file yet
        assert field.shape == (r + 1, 200)
        assert float(field[r // 2, 7]) == r // 2 + 7
        if r % 7 == 0:
            file.sync()
        if r % 10 == 0:
            file.setncattr(f"note_{r}", "written")
            print(r, float(np.sum(file["t"][:])))
    file.close()
    with netCDF4.Dataset("field.nc") as again:
        for r in range(rounds):
            assert np.array_equal(again["field"][r], np.arange(200) + r)
        date = netCDF4.num2date(again["t"][rounds - 1], again["t"].units)
        print(date, len(again.ncattrs()))


main()
