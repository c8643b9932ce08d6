# SPDX-License-Identifier: MIT
"""XGBoost: a booster that learns round by round on OpenMP's threads, with an objective in Python
that C++ calls and that takes an epoch, and a callback that does.

live: rounds=20 epochs=2 needs=xgboost
"""
import sys

import numpy as np
import pyheap
import xgboost


class Saving(xgboost.callback.TrainingCallback):
    """An epoch in the middle of train()."""

    def after_iteration(self, model, epoch, evals_log):
        if epoch == 1:
            pyheap.epoch("in a callback")
        return False


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(3)
    x = random.normal(size=(400, 6))
    y = x[:, 0] * x[:, 1] + x[:, 2]
    x[random.random(x.shape) < 0.05] = np.nan
    data = xgboost.DMatrix(x, y)
    parameters = {"nthread": 2, "max_depth": 3, "seed": 1, "tree_method": "hist", "verbosity": 0}

    def squares(predicted, matrix):
        if not squares.saved:
            squares.saved = True
            pyheap.epoch("in an objective")
        return predicted - matrix.get_label(), np.ones_like(predicted)

    booster = xgboost.Booster(parameters, [data])
    for r in range(rounds):
        squares.saved = False
        if booster.num_boosted_rounds() >= 60:
            booster = booster[:30]
        booster = xgboost.train(parameters, data, 3, obj=squares, xgb_model=booster,
                                callbacks=[Saving()])
        error = float(np.mean((booster.predict(data) - y) ** 2))
        copy = xgboost.Booster(model_file=booster.save_raw())
        assert (copy.predict(data) == booster.predict(data)).all()
        if r % 5 == 0:
            print(r, booster.num_boosted_rounds(), f"{error:.5f}",
                  f"{booster.get_score(importance_type='gain')['f2']:.4f}")


main()
