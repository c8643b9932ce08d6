# SPDX-License-Identifier: MIT
"""SciPy: sparse LU kept in C, conjugate gradients in progress, FFT, an optimiser's callback.

live: rounds=40 needs=scipy
"""
import sys

import numpy as np
import pyheap
import scipy.fft
import scipy.integrate
import scipy.optimize
import scipy.sparse as sparse
import scipy.sparse.linalg as linalg
import scipy.spatial


def laplacian(n):
    line = sparse.diags([-1, 2.01, -1], [-1, 0, 1], shape=(n, n))
    eye = sparse.identity(n)
    return (sparse.kron(line, eye) + sparse.kron(eye, line)).tocsc()


def minimum(start):
    """Epochs from inside the optimiser: C or Fortran code is on the stack."""
    steps = 0

    def step(x):
        nonlocal steps
        steps += 1
        if steps == 5:
            pyheap.epoch("inside the optimiser")

    found = scipy.optimize.minimize(scipy.optimize.rosen, start, method="L-BFGS-B", callback=step)
    assert found.success and steps >= 5
    return found.x


def main():
    rounds = int(sys.argv[1])
    matrix = laplacian(30)
    factors = linalg.splu(matrix)
    tree = scipy.spatial.cKDTree(np.random.default_rng(1).random((2000, 3)))
    ode = scipy.integrate.ode(lambda t, y: [y[1], -y[0]]).set_integrator("dopri5")
    ode.set_initial_value([1.0, 0.0])
    right = np.ones(matrix.shape[0])
    for r in range(rounds):
        x = minimum(np.linspace(-1, 2, 5 + r % 3))
        assert np.allclose(x, 1, atol=1e-3)
        solution = factors.solve(right)
        assert np.allclose(matrix @ solution, right)
        again, failed = linalg.cg(matrix, right, x0=solution * 0.9)
        assert failed == 0 and np.allclose(again, solution, rtol=1e-3)
        spectrum = scipy.fft.fft2(solution.reshape(30, 30), workers=2)
        assert np.allclose(scipy.fft.ifft2(spectrum).real.ravel(), solution)
        ode.integrate(ode.t + 0.1)
        assert abs(ode.y[0] - np.cos(ode.t)) < 1e-3
        near = tree.query([0.5, 0.5, (r % 10) / 10], k=3)[1]
        right = np.roll(right + 0.001 * solution, 1)
        if r % 10 == 0:
            print(r, near, f"{solution.sum():.6f} {ode.y[0]:.6f}")
    print(f"{right.sum():.6f}")


main()
