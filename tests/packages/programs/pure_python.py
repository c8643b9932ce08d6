# SPDX-License-Identifier: MIT
"""networkx and sympy: large graphs of objects, caches, generators of algorithms half-way.

live: rounds=15 needs=networkx,sympy
"""
import sys

import networkx as nx
import pyheap
import sympy as sp


def main():
    rounds = int(sys.argv[1])
    graph = nx.gnp_random_graph(150, 0.05, seed=1)
    paths = nx.all_simple_paths(graph, 0, 149)
    components = nx.Graph()
    x, y = sp.symbols("x y")
    polynomial = sp.Integer(1)
    primes = sp.primerange(2, 10**9)
    for r in range(rounds):
        path = next(paths)
        polynomial = sp.expand(polynomial * (x + r % 3)) if r % 12 else x + y
        prime = next(primes)
        pyheap.epoch()
        assert path[0] == 0 and path[-1] == 149 and nx.is_simple_path(graph, path)
        components.add_edge(r % 40, (r * 7) % 41)
        rank = nx.pagerank(graph) if r % 50 == 0 else None
        derived = sp.diff(polynomial, x)
        assert sp.expand(sp.integrate(derived, x) - polynomial + polynomial.subs(x, 0)) == 0
        if r % 10 == 0:
            print(r, len(path), prime, sp.degree(polynomial, x),
                  nx.number_connected_components(components), rank and f"{rank[0]:.6f}")


main()
