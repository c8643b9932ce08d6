# SPDX-License-Identifier: MIT
"""CasADi: expressions with derivatives, and IPOPT (C++ and Fortran) whose callback takes an epoch in
the middle of its iterations.

live: rounds=12 needs=casadi
"""
import sys

import casadi
import pyheap


class Watch(casadi.Callback):
    """Called by IPOPT after each of its iterations."""

    def __init__(self, variables):
        casadi.Callback.__init__(self)
        self.variables, self.calls = variables, 0
        self.construct("watch", {})

    def get_n_in(self):
        return casadi.nlpsol_n_out()

    def get_n_out(self):
        return 1

    def get_sparsity_in(self, i):
        size = {"f": 1, "x": self.variables, "lam_x": self.variables, "g": 1,
                "lam_g": 1}.get(casadi.nlpsol_out(i), 0)
        return casadi.Sparsity.dense(size) if size else casadi.Sparsity(0, 0)

    def eval(self, arg):
        self.calls += 1
        if self.calls == 3:
            pyheap.epoch()
        return [0]


def main():
    rounds = int(sys.argv[1])
    n = 10
    x = casadi.MX.sym("x", n)
    cost = casadi.sumsqr(x[1:] - x[:-1] ** 2) * 100 + casadi.sumsqr(1 - x[:-1])
    for r in range(rounds):
        watch = Watch(n)
        solver = casadi.nlpsol("solver", "ipopt", {"x": x, "f": cost, "g": casadi.sum1(x)},
                               {"print_time": False, "ipopt.print_level": 0, "ipopt.sb": "yes",
                                "iteration_callback": watch})
        found = solver(x0=[0.1 * (r % 5)] * n, lbg=-100, ubg=float(n) - 0.5)
        assert watch.calls > 3 and solver.stats()["success"]
        if r % 10 == 0:
            print(r, watch.calls, f"{float(found['f']):.8f}")


main()
