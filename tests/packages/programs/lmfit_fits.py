# SPDX-License-Identifier: MIT
"""lmfit: models made of others, a fit in Fortran whose callback takes the epoch between two of its
iterations, confidence intervals, parameters with expressions.

live: rounds=20 needs=lmfit
"""
import sys

import lmfit
import numpy as np
import pyheap
from lmfit.models import GaussianModel, LinearModel


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(1)
    x = np.linspace(0, 10, 120)
    model = GaussianModel(prefix="a_") + GaussianModel(prefix="b_") + LinearModel(prefix="l_")
    kept = []
    for r in range(rounds):
        y = (5 * np.exp(-(x - 3) ** 2) + (2 + r % 4) * np.exp(-(x - 7) ** 2 / 2) + 0.1 * x
             + random.normal(size=x.size) * 0.1)
        parameters = model.make_params(a_amplitude=5, a_center=2.5, a_sigma=1, b_amplitude=5,
                                       b_center=7.5, b_sigma=1, l_slope=0, l_intercept=0)
        parameters["b_sigma"].set(min=0.1, max=3)
        parameters.add("ratio", expr="b_amplitude / a_amplitude")
        steps = []

        def watch(parameters, iteration, residual, *more, **named):
            steps.append(iteration)
            if len(steps) == 20:
                pyheap.epoch()

        result = model.fit(y, parameters, x=x, iter_cb=watch,
                           method=["leastsq", "least_squares", "nelder"][r % 3])
        assert len(steps) > 20 and abs(result.params["a_center"].value - 3) < 0.2
        kept = [*kept[-3:], result]
        minimiser = lmfit.Minimizer(lambda p: p["k"] * x - y, lmfit.create_params(k=1, ))
        line = minimiser.minimize()
        if r % 5 == 0:
            low = kept[0].params["ratio"].value
            print(r, f"{low:.3f} {result.chisqr:.3f} {line.params['k'].value:.4f}")
    second = lmfit.Minimizer(lambda p: p["k"] * x + p["c"] - y, lmfit.create_params(k=1, c=0))
    found = second.minimize()
    print({name: f"{row[0][1]:.2f}" for name, row in
           lmfit.conf_interval(second, found, sigmas=[1]).items()})


main()
