# SPDX-License-Identifier: MIT
"""OR-Tools' CP-SAT: a solver with threads of its own, one of which calls Python with a solution: the
epoch is taken there, while the others search and the main thread waits.

live: rounds=12 needs=ortools
"""
import sys

import pyheap
from ortools.sat.python import cp_model


class Watch(cp_model.CpSolverSolutionCallback):
    """Called from one of the solver's threads."""

    def __init__(self):
        super().__init__()
        self.solutions = 0

    def on_solution_callback(self):
        self.solutions += 1
        if self.solutions == 1:
            pyheap.epoch()


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        model = cp_model.CpModel()
        n = 12
        take = [model.new_bool_var(f"take {i}") for i in range(n)]
        weight = [(i * 7 + r) % 11 + 1 for i in range(n)]
        value = [(i * 5 + r) % 13 + 1 for i in range(n)]
        model.add(sum(w * t for w, t in zip(weight, take)) <= 25)
        model.maximize(sum(v * t for v, t in zip(value, take)))
        solver, watch = cp_model.CpSolver(), Watch()
        solver.parameters.num_workers = 3
        assert solver.solve(model, watch) == cp_model.OPTIMAL and watch.solutions >= 1
        if r % 10 == 0:
            print(r, int(solver.objective_value))


main()
