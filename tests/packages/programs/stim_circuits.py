# SPDX-License-Identifier: MIT
"""stim: samplers of stabiliser circuits with their own random numbers and wide registers, a simulator
of tableaux and one of flips that go on over epochs.

live: rounds=40 needs=stim
"""
import sys

import numpy as np
import pyheap
import stim


def main():
    rounds = int(sys.argv[1])
    circuit = stim.Circuit.generated("surface_code:rotated_memory_x", distance=3, rounds=4,
                                     after_clifford_depolarization=0.01)
    sampler = circuit.compile_detector_sampler(seed=5)
    model = circuit.detector_error_model(decompose_errors=True)
    errors = model.compile_sampler(seed=6)
    tableau = stim.TableauSimulator(seed=7)
    flips = stim.FlipSimulator(batch_size=300, num_qubits=12, seed=8)
    operations = iter(())
    total = 0
    for r in range(rounds):
        found = sampler.sample(500)
        assert found.shape == (500, circuit.num_detectors)
        tableau.h(r % 12)
        tableau.cnot(r % 12, (r + 5) % 12)
        tableau.s((r + 3) % 12)
        flips.do(stim.Circuit("DEPOLARIZE1(0.1) 0 1 2 3 4 5 6 7 8 9 10 11"))
        pyheap.epoch()
        flips.do(stim.CircuitInstruction("H", [r % 12]))
        flips.do(next(operations, None) or stim.CircuitInstruction("CX", [0, 1 + r % 11]))
        if r % 7 == 0:
            operations = iter(stim.Circuit("H 0\nCX 0 1 2 3\nS 4\nCZ 5 6"))
        total += int(found.sum()) + int(tableau.measure((r * 5) % 12))
        x, z, *_ = flips.to_numpy(output_xs=True, output_zs=True)
        detectors, observables, _ = errors.sample(64)
        inverse = tableau.current_inverse_tableau()
        assert (inverse * inverse.inverse()) == stim.Tableau(len(inverse))
        if r % 10 == 0:
            print(r, total, int(np.sum(x)), int(np.sum(z)), int(detectors.sum()),
                  int(observables.sum()), stim.PauliString.random(3) is not None)


main()
