# SPDX-License-Identifier: MIT
"""pymoo: algorithms for several aims that are asked and told, compiled sorting of fronts, one whose
evaluation takes the epoch in the middle of a generation.

live: rounds=30 needs=pymoo
"""
import sys

import numpy as np
import pyheap
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
from pymoo.algorithms.soo.nonconvex.de import DE
from pymoo.core.problem import ElementwiseProblem
from pymoo.indicators.hv import HV
from pymoo.operators.sampling.lhs import LHS
from pymoo.problems import get_problem


class Beam(ElementwiseProblem):
    """Two aims against each other, and a limit."""

    def __init__(self):
        super().__init__(n_var=3, n_obj=2, n_ieq_constr=1, xl=-2, xu=2)
        self.calls = 0

    def _evaluate(self, x, out, *more, **named):
        self.calls += 1
        if self.calls % 20 == 10:
            pyheap.epoch("in the middle of a generation")
        out["F"] = [x @ x, (x - 1) @ (x - 1)]
        out["G"] = [0.5 - x[0] - x[1]]


def main():
    rounds = int(sys.argv[1])
    beam = Beam()
    several = NSGA2(pop_size=20)
    several.setup(beam, termination=("n_gen", 10 ** 9), seed=1, verbose=False)
    spheres = {name: (get_problem("rastrigin", n_var=4), algorithm) for name, algorithm in
               (("differential", DE(pop_size=20, sampling=LHS())), ("cma", CMAES(restarts=100)))}
    for i, (problem, algorithm) in enumerate(spheres.values()):
        algorithm.setup(problem, termination=("n_gen", 10 ** 9), seed=2 + i, verbose=False)
    volume = HV(ref_point=np.array([20.0, 20.0]))
    before = 0
    for r in range(rounds):
        several.next()
        for problem, algorithm in spheres.values():
            if algorithm.has_next():
                asked = algorithm.ask()
                pyheap.epoch("asked, and not yet told")
                algorithm.evaluator.eval(problem, asked)
                algorithm.tell(infills=asked)
        covered = volume(several.opt.get("F"))
        assert (several.opt.get("G") <= 0).all() or before == 0
        before = max(before, covered)
        assert beam.calls == 20 * (r + 1)
        if r % 10 == 0:
            print(r, f"{covered:.4f}", *(f"{algorithm.opt[0].F[0]:.4f}"
                                         for _, algorithm in spheres.values()))


main()
