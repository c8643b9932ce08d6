# SPDX-License-Identifier: MIT
"""HiGHS: a solver for mixed integer programs in C++, whose callback takes an epoch in the middle of
its search; a model that is changed and solved again from where it was.

live: rounds=12 needs=highspy
"""
import sys

import highspy
import pyheap


def knapsack(r):
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 2)
    items = [solver.addBinary(obj=-((i * 37 + r * 11) % 50 + 10)) for i in range(25)]
    for k in range(3):
        solver.addConstr(sum(((i * (13 + k) + r) % 30 + 5) * x for i, x in enumerate(items))
                         <= 150)
    return solver


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        solver = knapsack(r % 9)
        calls = []

        def watch(event):
            calls.append(event.data_out.objective_function_value)
            if len(calls) == 1:
                pyheap.epoch()

        solver.cbMipImprovingSolution.subscribe(watch)
        solver.run()
        assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal and calls
        best = solver.getInfo().objective_function_value
        solver.changeColBounds(0, 0, 0)
        solver.run()
        assert solver.getInfo().objective_function_value >= best - 1e-6
        if r % 10 == 0:
            print(r, round(best))


main()
