# SPDX-License-Identifier: MIT
"""Brian: neurons whose equations become Cython, which is compiled and loaded while the program runs,
before the first epoch and after recoveries; an operation takes the epoch in the middle of a run.

live: rounds=30 needs=brian2,Cython,setuptools
"""
import os
import sys

import brian2 as b
import numpy as np
import pyheap


def main():
    rounds = int(sys.argv[1])
    b.prefs.codegen.target = "cython"
    b.prefs.codegen.runtime.cython.cache_dir = os.path.join(sys.prefix, "brian")
    b.seed(7)
    neurons = b.NeuronGroup(40, "dv/dt = (1.5 - v + 0.3 * xi * ms ** 0.5) / (10 * ms) : 1",
                            threshold="v > 1", reset="v = 0", method="euler", name="neurons")
    neurons.v = "rand()"
    synapses = b.Synapses(neurons, neurons, "w : 1", on_pre="v_post += w", delay=1 * b.ms,
                          name="synapses")
    synapses.connect(condition="i != j", p=0.1)
    synapses.w = "0.02 * rand()"
    spikes, rate = b.SpikeMonitor(neurons), b.StateMonitor(neurons, "v", record=[0, 1])
    steps = []

    @b.network_operation(dt=5 * b.ms)
    def during():
        steps.append(len(steps))
        if len(steps) % 2:
            pyheap.epoch()

    network = b.Network(neurons, synapses, spikes, rate, during)
    network.store("start")
    for r in range(rounds):
        network.run(10 * b.ms)
        assert len(steps) == 2 * r + 2
        if r % 10 == 5:  # each is code that was not compiled yet, at least not by this process
            neurons.v = f"clip(v, 0, {0.5 + r % 30 / 100})"
            assert max(neurons.v) < 0.9
        if r % 20 == 19:
            before = spikes.num_spikes
            network.restore("start")
            assert spikes.num_spikes == 0 < before
        if r % 5 == 0:
            print(r, spikes.num_spikes, rate.v.shape, f"{float(np.mean(neurons.v)):.6f}")


main()
