# SPDX-License-Identifier: MIT
"""OpenMM on its CPU platform: molecular dynamics with threads of its own and code that it has
compiled; a reporter takes the epoch in the middle of the steps.

live: rounds=20 needs=openmm
"""
import sys

import openmm
import pyheap
from openmm import app, unit


class EpochReporter:
    """Called by the simulation at every tenth step."""

    def describeNextReport(self, simulation):
        return 10 - simulation.currentStep % 10, False, False, False, True, None

    def report(self, simulation, state):
        pyheap.epoch()
        self.energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def lattice(n):
    """n cubed atoms of argon."""
    system, topology, positions = openmm.System(), app.Topology(), []
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.8)
    residue = topology.addResidue("AR", topology.addChain())
    for i in range(n ** 3):
        system.addParticle(39.95)
        force.addParticle(0.0, 0.34, 0.99)
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), residue)
        positions.append(openmm.Vec3(i % n, i // n % n, i // n ** 2) * 0.4)
    side = n * 0.4
    system.setDefaultPeriodicBoxVectors((side, 0, 0), (0, side, 0), (0, 0, side))
    system.addForce(force)
    return system, topology, positions


def main():
    rounds = int(sys.argv[1])
    system, topology, positions = lattice(6)
    integrator = openmm.LangevinMiddleIntegrator(90, 1, 0.002)
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(topology, system, integrator,
                                openmm.Platform.getPlatformByName("CPU"),
                                {"Threads": "2", "DeterministicForces": "true"})
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(90, 4)
    reporter = EpochReporter()
    simulation.reporters.append(reporter)
    for r in range(rounds):
        simulation.step(10)
        if r % 10 == 0:
            print(r, simulation.currentStep, reporter.energy < 0)
    state = simulation.context.getState(getPositions=True)
    assert len(state.getPositions()) == 216


main()
