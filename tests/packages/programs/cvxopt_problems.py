# SPDX-License-Identifier: MIT
"""CVXOPT: its own matrices in C, interior points whose function is Python and takes an epoch in the
middle, GLPK with its memory of the thread's, factors of CHOLMOD and UMFPACK kept over epochs.

live: rounds=20 needs=cvxopt
"""
import math
import sys

import pyheap
from cvxopt import cholmod, glpk, matrix, solvers, sparse, spdiag, spmatrix, umfpack

solvers.options["show_progress"] = False
glpk.options["msg_lev"] = "GLP_MSG_OFF"


def centre(a, b):
    """The analytic centre of A x = b, x > 0."""
    m, n = a.size
    calls = 0

    def function(x=None, z=None):
        nonlocal calls
        calls += 1
        if calls == 5:
            pyheap.epoch("inside the solver")
        if x is None:
            return 0, matrix(1.0, (n, 1))
        if min(x) <= 0:
            return None
        f, df = -sum(math.log(v) for v in x), -(x ** -1).T
        return (f, df) if z is None else (f, df, spdiag(z[0] * x ** -2))

    found = solvers.cp(function, A=a, b=b)
    assert found["status"] == "optimal" and calls > 5
    return found["x"]


def line(n):
    """A sparse positive definite matrix."""
    return spmatrix([4.0] * n + [-1.0] * (n - 1), [*range(n), *range(1, n)],
                    [*range(n), *range(n - 1)])


def main():
    rounds = int(sys.argv[1])
    lower = line(200)
    factor = cholmod.symbolic(lower)
    cholmod.numeric(lower, factor)
    whole = sparse(lower + spmatrix([-1.0] * 199, range(199), range(1, 200), (200, 200)))
    symbols = umfpack.symbolic(whole)
    numbers = umfpack.numeric(whole, symbols)
    right = matrix(1.0, (200, 1))
    for r in range(rounds):
        a = matrix([[1.0, float(i * (r % 7 + 2) % 11)] for i in range(8)])
        x = centre(a, a * matrix([1.0 + i * 0.1 for i in range(8)]))
        status, y = glpk.ilp(matrix([-float((i * 37 + r * 11) % 50 + 10) for i in range(12)]),
                             matrix([float((i * 13 + r) % 30 + 5) for i in range(12)], (1, 12)),
                             matrix([90.0]), I=set(range(12)), B=set(range(12)))
        assert status == "optimal" and all(v in (0.0, 1.0) for v in y)
        one, other = +right, +right
        cholmod.solve(factor, one)
        umfpack.solve(whole, numbers, other)
        assert max(abs(one - other)) < 1e-9
        right = 1 + 0.1 * one
        cone = solvers.sdp(matrix([1.0, 1.0]), Gs=[matrix([[-1.0, 0, 0, 0], [0, 0, 0, -1.0]])],
                           hs=[matrix([[0.0, 1.0 + r % 3], [1.0 + r % 3, 0.0]])])
        assert cone["status"] == "optimal"
        if r % 5 == 0:
            print(r, f"{sum(x):.6f} {sum(y):.0f} {sum(right):.6f} {sum(cone['x']):.4f}")


main()
