# SPDX-License-Identifier: MIT
"""rustworkx and python-flint: graphs of Rust that hold Python's objects and call Python back, with
threads of rayon's; numbers, polynomials and matrices of FLINT.

live: rounds=40 needs=rustworkx,flint
"""
import sys

import flint
import pyheap
import rustworkx as rx


def main():
    rounds = int(sys.argv[1])
    graph = rx.PyDiGraph()
    nodes = graph.add_nodes_from([{"weight": i} for i in range(60)])
    for i in nodes:
        graph.add_edge(i, (i * 7 + 1) % 60, i % 5 + 1)
        graph.add_edge(i, (i + 1) % 60, 9)
    matrix = flint.fmpz_mat(4, 4, [i * i % 11 + (i % 5 == 0) for i in range(16)])
    polynomial = flint.fmpz_poly([1, 1])
    number = flint.fmpz(3)
    for r in range(rounds):
        visited = []

        def cost(edge):
            visited.append(edge)
            if len(visited) == 20:
                pyheap.epoch()
            return float(edge)

        lengths = rx.dijkstra_shortest_path_lengths(graph, r % 60, cost)
        graph[r % 60]["weight"] += r
        assert len(lengths) == 59 and len(visited) >= 20
        everywhere = rx.all_pairs_dijkstra_path_lengths(graph, float)
        number = pow(number + r, 3) % (flint.fmpz(2) ** 255 - 19)
        polynomial = polynomial * flint.fmpz_poly([r % 3, 1]) if r % 12 else flint.fmpz_poly([1, 1])
        if r % 10 == 0:
            print(r, sum(lengths.values()), sum(len(found) for found in everywhere.values()),
                  number % 10**9, len(polynomial.factor()[1]), matrix.det(), (matrix**5)[0, 0])


main()
