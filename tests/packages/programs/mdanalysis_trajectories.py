# SPDX-License-Identifier: MIT
"""MDAnalysis: trajectories written and read frame by frame in C, open over epochs, distances on OpenMP's
threads, a search of neighbours, an analysis that is interrupted.

live: rounds=30 needs=MDAnalysis
"""
import pathlib
import sys
import warnings

import MDAnalysis as mda
import numpy as np
import pyheap
from MDAnalysis.analysis import rms
from MDAnalysis.analysis.base import AnalysisBase
from MDAnalysis.lib import distances

warnings.simplefilter("ignore")


class Spread(AnalysisBase):
    """An epoch at its second frame."""

    def __init__(self, atoms):
        super().__init__(atoms.universe.trajectory)
        self.atoms = atoms

    def _prepare(self):
        self.results.spread = []

    def _single_frame(self):
        self.results.spread.append(self.atoms.radius_of_gyration())
        if len(self.results.spread) == 2:
            pyheap.epoch("inside an analysis")


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(2)
    n = 240
    universe = mda.Universe.empty(n, n_residues=n // 3, atom_resindex=np.arange(n) // 3,
                                  trajectory=True)
    universe.add_TopologyAttr("name", ["O", "H1", "H2"] * (n // 3))
    universe.add_TopologyAttr("mass", [16.0, 1, 1] * (n // 3))
    universe.dimensions = [30, 30, 30, 90, 90, 90]
    universe.atoms.positions = random.random((n, 3)) * 30
    oxygen = universe.select_atoms("name O")
    near = universe.select_atoms("name H* and around 3 name O", updating=True)
    writers = [mda.Writer(f"run.{kind}", n) for kind in ("xtc", "dcd", "trr")]
    for r in range(rounds):
        universe.atoms.positions += random.normal(size=(n, 3)).astype("f4") * 0.1
        for writer in writers:
            writer.write(universe.atoms)
        box = universe.dimensions
        table = distances.distance_array(oxygen, universe.atoms, box=box, backend="OpenMP")
        pyheap.epoch("files being written")
        assert np.allclose(table, distances.distance_array(oxygen, universe.atoms, box=box))
        pairs = distances.capped_distance(oxygen, oxygen, 4.0, box=box, return_distances=False)
        assert len(pairs) >= len(oxygen)
        if r % 10 == 0:
            print(r, len(pairs), len(near), f"{table.mean():.3f}")
    for writer in writers:
        writer.close()
    universe.atoms.write("run.gro")
    for kind in ("xtc", "dcd", "trr"):
        again = mda.Universe("run.gro", f"run.{kind}")
        assert len(again.trajectory) == rounds
        for frame in again.trajectory:
            if frame.frame % 5 == 2:
                pyheap.epoch("half-way through a file")
        spread = Spread(again.atoms).run()
        moved = rms.RMSD(again.select_atoms("name O")).run()
        print(kind, f"{np.mean(spread.results.spread):.3f} {moved.results.rmsd[-1, 2]:.2f}")
    for file in pathlib.Path().glob(".run.*"):  # with times in them
        file.unlink()


main()
