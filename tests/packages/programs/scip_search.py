# SPDX-License-Identifier: MIT
"""SCIP: a branch and bound search in C that calls Python for events and for constraints made there;
the epoch comes in the middle of it.

live: rounds=12 needs=pyscipopt
"""
import sys

import pyheap
import pyscipopt as scip


class Watch(scip.Eventhdlr):
    """Takes an epoch at the second node."""

    def __init__(self):
        self.nodes = 0

    def eventinit(self):
        self.model.catchEvent(scip.SCIP_EVENTTYPE.NODESOLVED, self)

    def eventexit(self):
        self.model.dropEvent(scip.SCIP_EVENTTYPE.NODESOLVED, self)

    def eventexec(self, event):
        self.nodes += 1
        if self.nodes == 2:
            pyheap.epoch()


class Tours(scip.Conshdlr):
    """No tour that misses a town: found out when there is a solution."""

    def __init__(self, n, edges):
        self.n, self.edges, self.cuts = n, edges, 0

    def short(self, solution):
        next_to = {i: [] for i in range(self.n)}
        for (i, j), x in self.edges.items():
            if self.model.getSolVal(solution, x) > 0.5:
                next_to[i].append(j)
                next_to[j].append(i)
        seen, todo = set(), [0]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += next_to[at]
        return seen if len(seen) < self.n else None

    def conscheck(self, constraints, solution, *more):
        return {"result": scip.SCIP_RESULT.INFEASIBLE if self.short(solution)
                else scip.SCIP_RESULT.FEASIBLE}

    def consenfolp(self, constraints, useful, infeasible):
        seen = self.short(None)
        if not seen:
            return {"result": scip.SCIP_RESULT.FEASIBLE}
        self.cuts += 1
        self.model.addCons(scip.quicksum(x for (i, j), x in self.edges.items()
                                         if (i in seen) != (j in seen)) >= 2)
        return {"result": scip.SCIP_RESULT.CONSADDED}

    def conslock(self, *more):
        pass


def tour(n, r):
    model = scip.Model()
    model.hideOutput()
    model.setPresolve(scip.SCIP_PARAMSETTING.OFF)
    model.setHeuristics(scip.SCIP_PARAMSETTING.OFF)
    model.setParam("misc/allowstrongdualreds", False)
    edges = {(i, j): model.addVar(vtype="B", obj=(i * 37 + j * 53 + i * j * (r + 11)) % 97 + 3)
             for i in range(n) for j in range(i + 1, n)}
    for i in range(n):
        model.addCons(scip.quicksum(x for edge, x in edges.items() if i in edge) == 2)
    watch, tours = Watch(), Tours(n, edges)
    model.includeEventhdlr(watch, "watch", "counts nodes")
    model.includeConshdlr(tours, "tours", "no short ones", chckpriority=-10, enfopriority=-10,
                          needscons=False)
    return model, watch, tours


def main():
    rounds = int(sys.argv[1])
    kept = None
    for r in range(rounds):
        model, watch, tours = tour(14, r % 7)
        model.optimize()
        assert model.getStatus() == "optimal"
        if watch.nodes < 2:
            pyheap.epoch()
        best = model.getObjVal()
        if r % 5 == 0:
            kept = model, best
            print(r, round(best), watch.nodes, tours.cuts)
        assert kept[0].getObjVal() == kept[1] and not tours.short(model.getBestSol())


main()
