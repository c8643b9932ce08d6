# SPDX-License-Identifier: MIT
"""CVXPY: problems with parameters that are compiled once and solved again, by solvers in Rust
(Clarabel) and in C (OSQP, started from its last answer; SCS).

live: rounds=12 needs=cvxpy,numpy
"""
import sys

import cvxpy as cp
import numpy as np
import pyheap


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(8)
    returns = cp.Parameter(10)
    factor = random.normal(size=(10, 10))
    weights = cp.Variable(10, nonneg=True)
    quadratic = cp.quad_form(weights, factor @ factor.T + np.eye(10))
    problem = cp.Problem(cp.Maximize(returns @ weights - quadratic), [cp.sum(weights) == 1])
    matrix = cp.Variable((3, 3), PSD=True)
    target = cp.Parameter((3, 3), symmetric=True)
    nearest = cp.Problem(cp.Minimize(cp.norm(matrix - target, "fro")))
    for r in range(rounds):
        returns.value = random.normal(size=10)
        first = problem.solve(solver=cp.CLARABEL)
        pyheap.epoch()
        second = problem.solve(solver=cp.OSQP, warm_start=True, eps_abs=1e-7, eps_rel=1e-7)
        assert abs(first - second) < 1e-3 and abs(weights.value.sum() - 1) < 1e-3
        noise = random.normal(size=(3, 3))
        target.value = noise + noise.T
        distance = nearest.solve(solver=cp.SCS)
        negative = np.linalg.eigvalsh(target.value)
        assert abs(distance - np.linalg.norm(negative[negative < 0])) < 1e-2
        if r % 10 == 0:
            print(r, f"{first:.4f}", f"{distance:.2f}", problem.status)


main()
