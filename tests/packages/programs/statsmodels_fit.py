# SPDX-License-Identifier: MIT
"""statsmodels: fitted models that are used after the recovery, a Kalman filter (Cython on BLAS).

live: rounds=6 needs=statsmodels
"""
import sys
import warnings

import numpy as np
import pyheap
import statsmodels.api as sm


def main():
    rounds = int(sys.argv[1])
    warnings.simplefilter("ignore")
    random = np.random.default_rng(2)
    x = sm.add_constant(random.normal(size=(200, 3)))
    y = x @ [1.0, 2.0, 3.0, 4.0] + random.normal(size=200) / 10
    state = sm.tsa.SARIMAX(np.cumsum(random.normal(size=60)), order=(1, 0, 0))
    for r in range(rounds):
        fitted = sm.OLS(y + r, x).fit()
        filtered = state.filter([0.5, 1.0 + r])
        pyheap.epoch()
        assert abs(fitted.params[0] - 1 - r) < 0.1
        assert filtered.forecast(3).shape == (3,)
        prediction = fitted.predict(x[:1])[0]
        if r % 10 == 0:
            print(r, f"{prediction:.6f} {filtered.llf:.6f}")


main()
