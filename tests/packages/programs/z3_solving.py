# SPDX-License-Identifier: MIT
"""Z3: a solver in C++ with its own memory and a thread for its timeouts; a stack of assertions that
is pushed and popped, a model that is asked later.

live: rounds=20 needs=z3
"""
import sys

import pyheap
import z3


def main():
    rounds = int(sys.argv[1])
    queens = [z3.Int(f"q{i}") for i in range(6)]
    solver = z3.Solver()
    solver.set("timeout", 100000)
    solver.add(z3.Distinct(queens), *[z3.And(0 <= q, q < 6) for q in queens])
    solver.add([z3.And(queens[i] - queens[j] != i - j, queens[i] - queens[j] != j - i)
                for i in range(6) for j in range(i)])
    for r in range(rounds):
        solver.push()
        count = 0
        while solver.check() == z3.sat:
            model = solver.model()
            if count == r % 4:
                pyheap.epoch()
            places = [model.evaluate(q).as_long() for q in queens]
            assert sorted(places) == list(range(6))
            solver.add(z3.Or([q != place for q, place in zip(queens, places)]))
            count += 1
        assert count == 4
        solver.pop()
        bits = z3.BitVec("b", 32)
        factors = z3.Solver()
        factors.add(bits * 3 == 2 * r + 1, z3.ULT(bits, 2**31) if r % 2 else z3.UGE(bits, 0))
        found = factors.check()
        if r % 10 == 0:
            print(r, count, found)


main()
