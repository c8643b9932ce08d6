# SPDX-License-Identifier: MIT
"""Qiskit: circuits built, transpiled by passes in Rust and simulated, exactly and by Aer's OpenMP
threads, with parameters that the rounds change.

live: rounds=10 epochs=2 needs=qiskit,qiskit_aer environment=QISKIT_PARALLEL=FALSE
"""
import io
import sys

import numpy as np
import pyheap
from qiskit import QuantumCircuit, qpy, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_aer import AerSimulator


def main():
    rounds = int(sys.argv[1])
    angle = Parameter("angle")
    circuit = QuantumCircuit(6)
    circuit.h(0)
    for q in range(5):
        circuit.cx(q, q + 1)
        circuit.rz(angle * (q + 1), q + 1)
        circuit.rx(angle, q)
    energy = SparsePauliOp(["ZZIIII", "IXXIII", "IIIZIY"], [1.0, 0.5, -0.25])
    simulator = AerSimulator(seed_simulator=3, max_parallel_threads=2)
    state = Statevector.from_label("000000")
    total = 0.0
    for r in range(rounds):
        bound = transpile(circuit.assign_parameters({angle: 0.1 * r + 0.2}),
                          basis_gates=["rz", "sx", "cx"], coupling_map=[[q, q + 1]
                                                                       for q in range(5)],
                          seed_transpiler=5, optimization_level=2)
        pyheap.epoch("transpiled")
        state = state.evolve(bound)
        total += float(state.expectation_value(energy).real)
        measured = bound.copy()
        measured.measure_all()
        counts = simulator.run(measured, shots=500).result().get_counts()
        pyheap.epoch("simulated")
        assert sum(counts.values()) == 500
        assert abs(np.linalg.norm(state.data) - 1) < 1e-9
        file = io.BytesIO()
        qpy.dump(bound, file)
        file.seek(0)
        assert qpy.load(file)[0] == bound
        if r % 5 == 0:
            print(r, bound.depth(), f"{total:.6f}", max(counts, key=counts.get), len(counts))


main()
