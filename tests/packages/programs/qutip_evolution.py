# SPDX-License-Identifier: MIT
"""QuTiP: states that are evolved step by step, coefficients that are Python functions and one that is
compiled with Cython while the program runs, trajectories with jumps.

live: rounds=20 needs=qutip,Cython,setuptools,filelock
"""
import contextlib
import shutil
import sys
import tempfile

import numpy as np
import pyheap
import qutip


def compiled(number, other, text):
    """With a coefficient that the compiler makes of a text, and tells us about."""
    with contextlib.redirect_stdout(sys.stderr):
        return qutip.QobjEvo([number, [other, text]], args={"w": 2.0})


def main():
    rounds = int(sys.argv[1])
    qutip.settings.tmproot = tempfile.mkdtemp()  # not in the program's: that is compared in the end
    n = 8
    a, number = qutip.destroy(n), qutip.num(n)
    calls = []

    def drive(t, strength):
        calls.append(t)
        if len(calls) % 400 == 0:
            pyheap.epoch("inside an integrator")
        return strength * np.cos(t)

    hamiltonian = qutip.QobjEvo([number, [a + a.dag(), drive]], args={"strength": 0.3})
    solver = qutip.MESolver(hamiltonian, [0.2 * a], options={"progress_bar": ""})
    solver.start(qutip.fock_dm(n, 1), 0)
    driven = compiled(number, a + a.dag(), "0.2 * sin(w * t)")
    for r in range(rounds):
        state = solver.step((r + 1) * 0.1)
        assert abs(state.tr() - 1) < 1e-6
        pyheap.epoch("between steps")
        if r == 12:
            driven = compiled(number, a + a.dag(), "0.2 * cos(w * t) * exp(-t)")
        method = ["adams", "bdf", "vern7"][r % 3]
        pure = qutip.sesolve(driven, qutip.basis(n, r % 3), np.linspace(0, 1, 5),
                             e_ops={"n": number}, options={"progress_bar": "", "method": method})
        jumps = qutip.mcsolve(number, qutip.basis(n, 3), [0, 0.5, 1.0], [0.5 * a],
                              e_ops=[number], ntraj=5, seeds=r,
                              options={"progress_bar": "", "map": "serial"})
        assert 0 <= jumps.expect[0][-1] <= 3
        entropy = qutip.entropy_vn(state)
        if r % 5 == 0:
            print(r, f"{qutip.expect(number, state):.4f} {pure.e_data['n'][-1]:.4f}",
                  f"{jumps.expect[0][-1]:.4f} {entropy:.3f}")
    shutil.rmtree(qutip.settings.tmproot)


main()
