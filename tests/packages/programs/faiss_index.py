# SPDX-License-Identifier: MIT
"""faiss: an index that grows and is searched by OpenMP's threads.

live: rounds=30 needs=faiss
"""
import sys

import faiss
import numpy as np
import pyheap

faiss.omp_set_num_threads(3)


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(6)
    flat, graph = faiss.IndexFlatL2(16), faiss.IndexHNSWFlat(16, 8)
    for r in range(rounds):
        vectors = random.normal(size=(50, 16)).astype(np.float32)
        flat.add(vectors)
        graph.add(vectors)
        pyheap.epoch()
        distances, places = flat.search(vectors[:5], 3)
        assert list(places[:, 0]) == list(range(r * 50, r * 50 + 5))
        assert graph.ntotal == flat.ntotal == (r + 1) * 50
        graph.search(vectors, 3)
        if r % 10 == 0:
            print(r, f"{float(distances[:, 1:].sum()):.3f}")


main()
