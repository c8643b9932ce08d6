# SPDX-License-Identifier: MIT
"""ASE: molecular dynamics with the EMT calculator, a relaxation that is suspended between its steps,
a trajectory and a log that are open, a database of structures.

live: rounds=30 needs=ase,numpy
"""
import os
import sys

import ase.build
import ase.db
import ase.io
import numpy as np
import pyheap
from ase import units
from ase.calculators.emt import EMT
from ase.md import MDLogger
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS


def relaxation(r):
    """A slab with an atom on it, until the forces are small."""
    slab = ase.build.fcc111("Cu", (2, 2, 2), vacuum=8)
    ase.build.add_adsorbate(slab, "Cu", 1.5 + r % 5 / 10, "fcc")
    slab.calc = EMT()
    return slab, BFGS(slab, logfile=None).irun(fmax=0.05)


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(3)
    atoms = ase.build.bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=random)
    dynamics = Langevin(atoms, 5 * units.fs, temperature_K=300, friction=0.02, rng=random)
    trajectory = ase.io.Trajectory("run.traj", "w", atoms)
    dynamics.attach(trajectory.write, interval=5)
    dynamics.attach(MDLogger(dynamics, atoms, "run.log"), interval=5)
    dynamics.attach(pyheap.epoch, interval=5)
    steps, slab, relaxed = iter(()), None, 0
    for r in range(rounds):
        dynamics.run(5)
        for _ in range(5):
            if next(steps, None) is None:
                if slab is not None:
                    relaxed += 1
                    assert np.abs(slab.get_forces()).max() < 0.05
                slab, steps = relaxation(r)
        if r % 10 == 0:
            with ase.db.connect("found.json") as database:
                database.write(atoms, round=r)
            print(r, relaxed, f"{atoms.get_potential_energy():.4f} {atoms.get_temperature():.1f}")
    trajectory.close()
    with ase.io.Trajectory("run.traj") as again:
        assert len(again) == rounds + 1
        assert np.allclose(again[-1].positions, atoms.positions)
    assert ase.db.connect("found.json").count() == (rounds + 9) // 10
    for name in ("found.json", "run.log"):  # with times, and the last digits
        os.remove(name)


main()
