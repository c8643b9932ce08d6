# SPDX-License-Identifier: MIT
"""Astropy: quantities with units, times, coordinates, a FITS file that is mapped and written to in
place, models that are fitted.

live: rounds=15 needs=astropy,numpy
"""
import os
import sys

import numpy as np
import pyheap
from astropy import units as u
from astropy.io import fits
from astropy.modeling import fitting, models
from astropy.table import QTable


def main():
    rounds = int(sys.argv[1])
    fits.writeto("image.fits", np.zeros((32, 32), dtype="f4"))
    picture = fits.open("image.fits", mode="update", memmap=True)
    data = picture[0].data
    table = QTable({"t": np.arange(30) * u.s, "v": np.zeros(30) * u.km / u.s})
    fit = fitting.LevMarLSQFitter()
    x = np.linspace(-3, 3, 60)
    for r in range(rounds):
        table["v"] += (np.arange(30) * (r % 3)) * u.m / u.s
        data[r % 32] = r
        pyheap.epoch()
        assert data[r % 32, 5] == r and data[(r - 1) % 32, 5] in (r - 1, 0)
        way = (table["t"] * table["v"]).sum().to(u.AU)
        line = fit(models.Gaussian1D(1, 0.2, 1), x, 2 * np.exp(-0.5 * (x - r % 3 / 10) ** 2))
        if r % 10 == 0:
            print(r, f"{way:.10f}", f"{line.mean.value:.6f} {line.amplitude.value:.6f}")
            picture.flush()
    picture.close()
    assert fits.getdata("image.fits")[(rounds - 1) % 32, 0] == rounds - 1
    os.remove("image.fits")


main()
