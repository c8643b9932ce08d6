# SPDX-License-Identifier: MIT
"""PySCF: integrals in C with OpenMP, a calculation to self-consistency whose callback takes epochs
between its iterations, temporary HDF5 files.

live: rounds=12 needs=pyscf
"""
import sys

import pyheap
from pyscf import gto, mp, scf


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        molecule = gto.M(atom=f"O 0 0 0; H 0 0.757 0.587; H 0 {-0.757 - r % 4 / 20} 0.587",
                         basis="6-31g", verbose=0)
        field = scf.RHF(molecule)
        cycles = []

        def watch(values):
            cycles.append(values["e_tot"])
            if len(cycles) == 3:
                pyheap.epoch()

        field.callback = watch
        energy = field.kernel()
        assert field.converged and len(cycles) > 3
        correlation = mp.MP2(field).kernel()[0]
        if r % 10 == 0:
            print(r, f"{energy:.6f}", f"{correlation:.6f}")


main()
