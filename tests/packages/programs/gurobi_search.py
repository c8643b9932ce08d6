# SPDX-License-Identifier: MIT
"""Gurobi: a branch and bound search on two threads, whose callback takes the epoch in the middle of it;
a model that is changed and solved again from where it was.

live: rounds=12 needs=gurobipy
"""
import sys

import gurobipy as gurobi
import pyheap


def main():
    rounds = int(sys.argv[1])
    environment = gurobi.Env(params={"OutputFlag": 0, "Threads": 2})
    for r in range(rounds):
        model = gurobi.Model(env=environment)
        model.Params.Presolve = model.Params.Cuts = 0
        items = model.addVars(25, vtype="B", obj=[-((i * 37 + r * 11) % 50 + 10) for i in range(25)])
        for k in range(3):
            model.addConstr(gurobi.quicksum(((i * (13 + k) + r % 9) % 30 + 5) * items[i]
                                            for i in range(25)) <= 150)
        calls = []

        def watch(model, where):
            if where in (gurobi.GRB.Callback.MIPSOL, gurobi.GRB.Callback.MIPNODE):
                calls.append(where)
                if len(calls) == 2:
                    pyheap.epoch()

        model.optimize(watch)
        assert model.Status == gurobi.GRB.OPTIMAL and len(calls) >= 2
        best = model.ObjVal
        items[0].UB = 0
        model.optimize()
        assert model.ObjVal >= best - 1e-6
        if r % 5 == 0:
            print(r, round(best), round(model.ObjVal))


main()
