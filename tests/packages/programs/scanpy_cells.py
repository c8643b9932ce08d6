# SPDX-License-Identifier: MIT
"""scanpy and anndata: counts of cells that are normalised, projected, joined with their neighbours and
clustered, with code that Numba compiles; a file that backs them and stays open over epochs.

live: rounds=12 epochs=2 needs=scanpy,anndata,igraph environment=NUMBA_NUM_THREADS=2
"""
import os
import sys
import warnings

import anndata
import numpy as np
import pyheap
import scanpy as sc
import scipy.sparse as sparse

warnings.simplefilter("ignore")


def counts(r):
    """200 cells of four kinds."""
    random = np.random.default_rng(r)
    rates = random.gamma(1.0, 1.0, size=(4, 60)) * 3
    kinds = np.arange(200) % 4
    cells = anndata.AnnData(sparse.csr_matrix(random.poisson(rates[kinds]).astype("f4")))
    cells.obs["kind"] = [f"kind {k}" for k in kinds]
    return cells


def main():
    rounds = int(sys.argv[1])
    cells = counts(0)
    cells.X = cells.X.toarray()
    cells.write_h5ad("backed.h5ad")
    backed = anndata.read_h5ad("backed.h5ad", backed="r+")
    batches = iter(())
    for r in range(rounds):
        found = counts(r % 7)
        sc.pp.normalize_total(found, target_sum=1000)
        sc.pp.log1p(found)
        sc.pp.highly_variable_genes(found, n_top_genes=30)
        pyheap.epoch("before the projection")
        sc.pp.pca(found, n_comps=8, random_state=1)
        sc.pp.neighbors(found, n_neighbors=10, random_state=1)
        sc.tl.leiden(found, flavor="igraph", n_iterations=2, random_state=1, directed=False)
        assert found.obs["leiden"].nunique() >= 2
        sc.tl.rank_genes_groups(found, "kind", method="t-test")
        backed[:, 0].X  # read from the file
        backed.X[r % 200, :] = r
        piece = next(batches, None)
        if piece is None:
            batches = backed.chunked_X(50)
            piece = next(batches)
        pyheap.epoch("a file half-way")
        assert piece[0].shape == (50, 60) and float(backed.X[r % 200, 3]) == r
        if r % 5 == 0:
            print(r, found.obs["leiden"].nunique(), found.uns["rank_genes_groups"]["names"][0][0],
                  f"{np.abs(found.obsm['X_pca']).mean():.3f}")
    backed.file.close()
    again = anndata.read_h5ad("backed.h5ad")
    assert float(again.X[(rounds - 1) % 200, 5]) == rounds - 1
    os.remove("backed.h5ad")


main()
