# SPDX-License-Identifier: MIT
"""NEURON: cells of several compartments with channels in C, two threads of its own, steps that are
fixed and of variable length; an event calls Python in the middle of a run.

live: rounds=20 needs=neuron,numpy
"""
import sys

import numpy as np
import pyheap
from neuron import h


class Cell:
    """A soma with channels and a dendrite with a synapse."""

    def __init__(self, number):
        self.soma, self.dendrite = h.Section(f"soma{number}"), h.Section(f"dendrite{number}")
        self.dendrite.connect(self.soma(1))
        self.soma.L = self.soma.diam = 12
        self.dendrite.L, self.dendrite.diam, self.dendrite.nseg = 200, 1, 11
        self.soma.insert("hh")
        self.dendrite.insert("pas")
        self.synapse = h.ExpSyn(self.dendrite(0.8))
        self.synapse.tau = 2
        self.noise = h.NetStim()
        self.noise.interval, self.noise.number, self.noise.noise = 3, 1e9, 1
        self.noise.noiseFromRandom123(number, 1, 2)
        self.drive = h.NetCon(self.noise, self.synapse, 1, 1, 0.02)
        self.spikes = h.Vector()
        self.watch = h.NetCon(self.soma(0.5)._ref_v, None, sec=self.soma)
        self.watch.record(self.spikes)


def main():
    rounds = int(sys.argv[1])
    h.load_file("stdrun.hoc")
    cells = [Cell(i) for i in range(6)]
    ring = [h.NetCon(cells[i].soma(0.5)._ref_v, cells[i - 1].synapse, 0, 2, 0.005,
                     sec=cells[i].soma) for i in range(6)]
    h.ParallelContext().nthread(2)
    time, voltage = h.Vector(), h.Vector()
    time.record(h._ref_t)
    voltage.record(cells[0].soma(0.5)._ref_v)
    saved, solver = h.SaveState(), h.CVode()
    for r in range(rounds):
        solver.active(r % 3 == 2)
        calls = []

        def during():
            calls.append(h.t)
            saved.save()
            pyheap.epoch()  # the simulator's loop is on the stack

        h.dt = 0.025  # a step of variable length has left its own
        h.finitialize(-65 - r % 5)
        solver.event(7, during)
        h.continuerun(20)
        assert len(calls) == 1 and abs(calls[0] - 7) < 0.01 and abs(h.t - 20) < 0.1, (calls, h.t)
        v, spikes = np.array(voltage), sum(len(cell.spikes) for cell in cells)
        assert len(v) == len(time) and np.all(np.diff(np.array(time)) >= 0) and v.max() < 60
        saved.restore()
        assert abs(h.t - calls[0]) < 1e-6
        if r % 5 == 0:
            print(r, spikes, len(v), f"{v.mean():.4f}", len(ring))


main()
