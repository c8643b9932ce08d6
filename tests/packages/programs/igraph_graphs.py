# SPDX-License-Identifier: MIT
"""igraph: graphs in C, whose attributes are Python's; a search through a graph that is suspended.

live: rounds=40 needs=igraph
"""
import random
import sys

import igraph
import pyheap


def main():
    rounds = int(sys.argv[1])
    random.seed(4)
    igraph.set_random_number_generator(random)
    graph = igraph.Graph.Barabasi(200, 2)
    graph.vs["heat"] = [0.0] * 200
    graph.vs[0]["heat"] = 1000.0
    walk = graph.bfsiter(0)
    for r in range(rounds):
        vertex = next(walk, None)
        if vertex is None:
            walk = graph.bfsiter(r % 200)
            vertex = next(walk)
        pyheap.epoch()
        neighbours = vertex.neighbors()
        for other in neighbours:
            other["heat"] += vertex["heat"] / (2 * len(neighbours))
        vertex["heat"] /= 2
        graph.rewire(3)
        assert graph.ecount() == 397 and len(graph.get_shortest_paths(0)) == 200
        if r % 10 == 0:
            print(r, f"{sum(graph.vs['heat']):.3f}", graph.clique_number(), graph.diameter() > 0)


main()
