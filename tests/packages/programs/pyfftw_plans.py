# SPDX-License-Identifier: MIT
"""pyFFTW: plans in C with threads of their own, kept over epochs and made after recoveries, wisdom,
the cache of the interfaces with the thread that clears it.

live: rounds=40 needs=pyfftw,numpy
"""
import sys

import numpy as np
import pyfftw
import pyheap


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(1)
    pyfftw.interfaces.cache.enable()
    pyfftw.interfaces.cache.set_keepalive_time(0.5)
    field = pyfftw.empty_aligned((96, 96), "float64")
    spectrum = pyfftw.empty_aligned((96, 49), "complex128")
    there = pyfftw.FFTW(field, spectrum, axes=(0, 1), threads=2, flags=("FFTW_MEASURE",))
    back = pyfftw.FFTW(spectrum, field, axes=(0, 1), threads=2, direction="FFTW_BACKWARD",
                       flags=("FFTW_MEASURE", "FFTW_DESTROY_INPUT"))
    start = random.normal(size=field.shape)
    field[:] = start
    kept = {}
    for r in range(rounds):
        before = field.copy()
        there()
        pyheap.epoch()  # between the two: the spectrum is in the plan's array
        back()
        assert np.allclose(field, before)
        field[:] = np.roll(field, 1, axis=r % 2)
        n = 64 + r * 8 % 256
        if n not in kept:
            kept[n] = pyfftw.builders.fft(pyfftw.empty_aligned(n * 16, "complex64"), threads=2)
            kept[n].input_array[:] = 1
        assert abs(kept[n]()[0] - n * 16) < 1
        line = pyfftw.interfaces.numpy_fft.rfft(field[r % 96], threads=2)
        assert np.allclose(line, np.fft.rfft(field[r % 96]))
        if r % 10 == 0:
            wisdom = pyfftw.export_wisdom()
            pyfftw.forget_wisdom()
            assert all(pyfftw.import_wisdom(wisdom))
            print(r, f"{field.sum():.6f} {np.abs(line).sum():.6f}", len(kept))


main()
