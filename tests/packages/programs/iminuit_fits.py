# SPDX-License-Identifier: MIT
"""iminuit: a minimum that C++ looks for, with epochs from inside of the function in Python that it
calls, and from inside of the gradient's; errors along a profile.

live: rounds=20 epochs=3 needs=iminuit
"""
import sys

import numpy as np
import pyheap
from iminuit import Minuit
from iminuit.cost import UnbinnedNLL


def normal(x, mean, width):
    return np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi))


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(3)
    calls = 0

    def cost(a, b, c):
        nonlocal calls
        calls += 1
        if calls == 20:
            pyheap.epoch("inside of a minimisation")
        return (a - 1) ** 2 + (b - a * a) ** 2 * 10 + np.cosh(c - b)

    def slope(a, b, c):
        if calls == 0:
            pyheap.epoch("inside of a gradient")
        return [2 * (a - 1) - 40 * a * (b - a * a), 20 * (b - a * a) - np.sinh(c - b),
                np.sinh(c - b)]

    for r in range(rounds):
        calls = 0
        steep = Minuit(cost, a=-1.0 - r % 5, b=2.0, c=0.5, grad=slope)
        steep.migrad()
        assert steep.valid and abs(steep.values["a"] - 1) < 1e-2
        sample = random.normal(2, 1.5, 200)
        fit = Minuit(UnbinnedNLL(sample, normal), mean=1.0, width=1.0)
        fit.limits["width"] = (0.1, None)
        fit.migrad()
        pyheap.epoch("a fit in memory")
        fit.minos()
        assert fit.merrors["mean"].is_valid
        if r % 10 == 0:
            print(r, f"{fit.values['mean']:.5f} {fit.merrors['width'].upper:.5f} {steep.fval:.6f}")


main()
