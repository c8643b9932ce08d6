# SPDX-License-Identifier: MIT
"""petsc4py, of Debian: Krylov methods in C whose monitor takes the epoch between two iterations,
matrices whose product is Python, Newton's method and time steps with Python functions.

live: rounds=20 needs=petsc4py debian=python3-petsc4py
live: environment=PETSC_DIR=/usr/lib/petscdir/petsc3.18/x86_64-linux-gnu-real
"""
import os
import sys

import numpy as np
import petsc4py
import pyheap

# A program that is alone needs neither Open MPI's daemon, which could not come back, nor sockets.
os.environ.update(OMPI_MCA_ess_singleton_isolated="1", OMPI_MCA_btl="self")
petsc4py.init(["petsc4py"])
from petsc4py import PETSc  # noqa: E402


def laplacian(n):
    """Of a square, with its diagonal a little larger."""
    matrix = PETSc.Mat().createAIJ((n * n, n * n), nnz=5)
    for row in range(n * n):
        i, j = divmod(row, n)
        matrix[row, row] = 4.05
        for k, inside in ((row - n, i > 0), (row + n, i < n - 1), (row - 1, j > 0),
                          (row + 1, j < n - 1)):
            if inside:
                matrix[row, k] = -1
    matrix.assemble()
    return matrix


class Shifted:
    """A matrix that is Python: another one, and a multiple of one."""

    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def mult(self, whole, x, y):
        self.products += 1
        self.matrix.mult(x, y)
        y.axpy(0.5, x)


def solver(operator, kind, preconditioner, preconditioned=None):
    found = PETSc.KSP().create()
    found.setOperators(operator, preconditioned or operator)
    found.setType(kind)
    found.getPC().setType(preconditioner)
    found.setTolerances(rtol=1e-8)

    def monitor(ksp, iteration, norm):
        if iteration == 3:
            pyheap.epoch(f"inside {kind}")

    found.setMonitor(monitor)
    return found


def main():
    rounds = int(sys.argv[1])
    n = 24
    matrix = laplacian(n)
    shell = Shifted(matrix)
    shifted = PETSc.Mat().createPython(matrix.getSizes(), shell)
    shifted.setUp()
    solvers = [solver(matrix, "gmres", "ilu"), solver(matrix, "cg", "sor"),
               solver(shifted, "bcgs", "jacobi", matrix)]
    right, x = matrix.createVecs()
    right.set(1)
    newton = PETSc.SNES().create()
    residual, jacobian = right.duplicate(), matrix.duplicate(copy=True)

    def function(snes, u, f):
        matrix.mult(u, f)
        f.axpy(-1, right)
        f.array += u.array ** 3

    def derivative(snes, u, j, p):
        matrix.copy(j, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        j.setDiagonal(matrix.getDiagonal() + 3 * u * u)
        j.assemble()

    newton.setFunction(function, residual)
    newton.setJacobian(derivative, jacobian)
    newton.setMonitor(lambda snes, i, norm: i == 1 and pyheap.epoch("inside Newton"))
    for r in range(rounds):
        for ksp in solvers:
            x.set(0)
            ksp.solve(right, x)
            assert ksp.converged and ksp.getIterationNumber() > 3
        sums = x.sum()
        x.set(0)
        newton.solve(None, x)
        assert newton.converged
        function(newton, x, residual)
        assert residual.norm() < 1e-4
        right.array = np.roll(right.array, 1) + 0.001 * x.array
        if r % 5 == 0:
            print(r, f"{sums:.5f} {x.sum():.5f}", newton.getIterationNumber(), shell.products > 0)


main()
