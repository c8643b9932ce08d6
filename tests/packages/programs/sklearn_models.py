# SPDX-License-Identifier: MIT
"""scikit-learn: forests on joblib's threads, k-means on OpenMP's, a model trained in parts.

live: rounds=6 needs=sklearn
"""
import sys

import numpy as np
import pyheap
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(1)
    x = random.normal(size=(400, 6))
    y = x @ np.arange(6) + 1
    part = SGDRegressor(random_state=1)
    pipe = make_pipeline(StandardScaler(), PolynomialFeatures(2)).fit(x)
    for r in range(rounds):
        forest = RandomForestClassifier(5, n_jobs=2, random_state=r).fit(x, y > 0)
        means = KMeans(4, n_init=1, random_state=r, max_iter=20).fit(x)
        part.partial_fit(x, y)
        pyheap.epoch()
        assert forest.score(x, y > 0) > 0.9
        assert sorted(set(means.predict(x))) == [0, 1, 2, 3]
        assert pipe.transform(x).shape == (400, 28)
        if r % 10 == 0:
            print(r, int(forest.predict(x).sum()), f"{part.coef_[5]:.6f}")
    print(f"{part.coef_.sum():.6f}")


main()
