# SPDX-License-Identifier: MIT
"""NumPy arrays of all sizes, allocated, resized, viewed and freed between epochs.

live: rounds=40 needs=numpy
"""
import hashlib
import sys

import numpy as np

try:
    import pyheap
except ImportError:
    import plain as pyheap


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(7)
    kept = {}
    digest = hashlib.sha256()
    for r in range(rounds):
        size = int(random.integers(1, 400_000))
        kept[r] = np.arange(size, dtype=random.choice(["f8", "i4", "u1", "c16"]))
        kept[r][::3] += np.array(r).astype(kept[r].dtype)
        view = kept[r][1:][::-2]
        zeros = np.zeros(300_000)
        text = np.array([f"{r}-{i}" for i in range(200)], dtype=object)
        before = view.copy()
        pyheap.epoch()
        assert (view == before).all() and not zeros.any() and text[r % 200] == f"{r}-{r % 200}"
        if r >= 8:
            old = kept.pop(r - 8 + int(random.integers(0, 2)) * 3, None)
            if old is not None:
                digest.update(old.tobytes())
        for array in kept.values():
            digest.update(array[:100].tobytes())
        if r % 10 == 0:
            print(r, len(kept), digest.hexdigest()[:16])
    print("sha256", digest.hexdigest())


main()
