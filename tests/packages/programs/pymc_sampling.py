# SPDX-License-Identifier: MIT
"""PyMC: a chain of NUTS, step by step on functions that PyTensor has compiled with Numba, and once
by sample(), with an epoch from inside of its callback.

live: rounds=100 epochs=1 needs=pymc
"""
import logging
import sys
import warnings

import numpy as np
import pyheap
import pymc
import pytensor

pytensor.config.cxx = ""  # else it looks for a compiler
warnings.simplefilter("ignore")
logging.disable()  # how long it took


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(3)
    x = np.linspace(0, 1, 40)
    with pymc.Model() as model:
        a = pymc.Normal("a", 0, 5)
        b = pymc.Normal("b", 0, 5)
        width = pymc.HalfNormal("width", 1)
        seen = pymc.Data("seen", 1.0 + 2.0 * x + random.normal(0, 0.3, x.size))
        pymc.Normal("y", a + b * x, width, observed=seen)
        step = pymc.NUTS(rng=7)

        def during(trace, draw):
            if draw.draw_idx % 10 == 5:
                pyheap.epoch("inside of sample()")

        drawn = pymc.sample(draws=40, tune=60, chains=1, cores=1, random_seed=5,
                            progressbar=False, callback=during,
                            compute_convergence_checks=False, return_inferencedata=False)
        print(f"{drawn['a'].mean():.4f} {drawn['b'].mean():.4f} {drawn['width'].mean():.4f}")
        point = model.initial_point()
        for r in range(rounds):
            point, (stats,) = step.step(point)
            pyheap.epoch("between two steps")
            if r == rounds // 2:
                step.stop_tuning()
            if r % 20 == 0:
                pymc.set_data({"seen": 1.0 + 2.0 * x + random.normal(0, 0.3, x.size)})
                print(r, stats["tree_size"], f"{stats['step_size']:.5f}", f"{stats['energy']:.4f}",
                      f"{point['a']:.4f} {point['b']:.4f}")


main()
