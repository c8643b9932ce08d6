# SPDX-License-Identifier: MIT
"""RDKit: molecules in C++, a search through a generator, shapes made with threads.

live: rounds=20 needs=rdkit
"""
import sys

import pyheap
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem, Descriptors

RDLogger.DisableLog("rdApp.*")
SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C1CCCCC1N"]


def main():
    rounds = int(sys.argv[1])
    pattern = Chem.MolFromSmarts("[#6]~[#8]")
    kept = [Chem.MolFromSmiles(text) for text in SMILES]
    for r in range(rounds):
        molecule = Chem.AddHs(kept[r % len(kept)])
        places = list(AllChem.EmbedMultipleConfs(molecule, 3, randomSeed=r + 1, numThreads=2))
        atoms = iter(molecule.GetAtoms())
        first = next(atoms)
        pyheap.epoch()  # the atoms are half visited
        rest = sum(atom.GetAtomicNum() for atom in atoms) + first.GetAtomicNum()
        energies = AllChem.MMFFOptimizeMoleculeConfs(molecule, numThreads=2, maxIters=20)
        assert len(places) == len(energies) == 3
        if r % 10 == 0:
            found = len(molecule.GetSubstructMatches(pattern))
            print(r, rest, found, f"{Descriptors.MolWt(molecule):.3f}")


main()
