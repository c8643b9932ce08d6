# SPDX-License-Identifier: MIT
"""CatBoost: trees grown on threads of its own, with categories as words; a callback takes an epoch
between two of them, and predictions stage by stage are suspended over epochs.

live: rounds=12 epochs=2 needs=catboost,numpy
"""
import sys

import catboost
import numpy as np
import pyheap


class Watch:
    """Called after each tree."""

    def __init__(self):
        self.errors = []

    def after_iteration(self, info):
        self.errors.append(info.metrics["learn"]["RMSE"][-1])
        if len(self.errors) == 8:
            pyheap.epoch("between two trees")
        return True


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(4)
    numbers = random.normal(size=(400, 5))
    words = np.array(["red", "green", "blue", "none"])[random.integers(0, 4, 400)]
    y = numbers[:, 0] * 2 + np.char.str_len(words) + numbers[:, 1] ** 2
    rows = [[*line, word] for line, word in zip(numbers.tolist(), words.tolist())]
    pool = catboost.Pool(rows, y, cat_features=[5])
    stages = iter(())
    for r in range(rounds):
        watch = Watch()
        model = catboost.CatBoostRegressor(iterations=15, depth=4, thread_count=2,
                                           random_seed=r % 9, verbose=False,
                                           allow_writing_files=False)
        model.fit(pool, callbacks=[watch])
        assert len(watch.errors) == 15 and watch.errors[-1] < watch.errors[0]
        found = next(stages, None)
        if found is None:
            kept, stages = model, model.staged_predict(pool, thread_count=2)
            found = next(stages)
        pyheap.epoch("predictions half-way")
        assert found.shape == (400,) and np.isfinite(found).all()
        if r % 5 == 0:
            again = catboost.CatBoostRegressor().load_model(blob=kept._serialize_model())
            assert np.allclose(again.predict(pool), kept.predict(pool))
            print(r, f"{watch.errors[-1]:.5f} {found.mean():.5f} {model.score(pool):.5f}")


main()
