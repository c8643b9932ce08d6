# SPDX-License-Identifier: MIT
"""DEAP: classes made at run time, programs as trees that are compiled and evolved, a strategy that is
asked and told; the epoch comes in the middle of a generation.

live: rounds=30 needs=deap,numpy
"""
import operator
import random
import sys

import numpy as np
import pyheap
from deap import algorithms, base, cma, creator, gp, tools


def divide(a, b):
    return a / b if abs(b) > 1e-6 else 1.0


def trees():
    """A toolbox for programs of one argument."""
    primitives = gp.PrimitiveSet("main", 1)
    for function in (operator.add, operator.sub, operator.mul, divide):
        primitives.addPrimitive(function, 2)
    primitives.addEphemeralConstant("constant", lambda: random.randint(-2, 2))
    creator.create("Least", base.Fitness, weights=(-1.0,))
    creator.create("Tree", gp.PrimitiveTree, fitness=creator.Least)
    creator.create("Point", list, fitness=creator.Least)
    box = base.Toolbox()
    box.register("expression", gp.genHalfAndHalf, pset=primitives, min_=1, max_=2)
    box.register("individual", tools.initIterate, creator.Tree, box.expression)
    box.register("population", tools.initRepeat, list, box.individual)
    box.register("compile", gp.compile, pset=primitives)
    box.register("select", tools.selTournament, tournsize=3)
    box.register("mate", gp.cxOnePoint)
    box.register("small", gp.genFull, min_=0, max_=2)
    box.register("mutate", gp.mutUniform, expr=box.small, pset=primitives)
    for name in ("mate", "mutate"):
        box.decorate(name, gp.staticLimit(operator.attrgetter("height"), 8))
    return box


def main():
    rounds = int(sys.argv[1])
    random.seed(4)
    np.random.seed(4)
    box = trees()
    points = [i / 10 for i in range(-10, 10)]
    evaluated = 0

    def evaluate(tree):
        nonlocal evaluated
        evaluated += 1
        function = box.compile(tree)
        if evaluated % 40 == 0:
            pyheap.epoch()
        return sum((function(x) - x ** 4 - x ** 3) ** 2 for x in points) / len(points),

    box.register("evaluate", evaluate)
    statistics = tools.Statistics(lambda one: one.fitness.values[0])
    statistics.register("least", min)
    population, best = box.population(60), tools.HallOfFame(2)
    strategy = cma.Strategy([3.0] * 4, 2.0, lambda_=8)
    points_of = tools.Logbook()
    for r in range(rounds):
        population, log = algorithms.eaSimple(population, box, 0.6, 0.2, 1, statistics, best,
                                              verbose=False)
        asked = strategy.generate(creator.Point)
        pyheap.epoch("asked, and not yet told")
        for point in asked:
            point.fitness.values = sum(v * v for v in point),
        strategy.update(asked)
        points_of.record(round=r, least=min(p.fitness.values[0] for p in asked))
        assert best[0].fitness.values[0] <= log.select("least")[-1]
        if r % 10 == 0:
            print(r, evaluated, f"{best[0].fitness.values[0]:.6f} {points_of[-1]['least']:.3e}")


main()
