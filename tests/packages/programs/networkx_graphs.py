# SPDX-License-Identifier: MIT
"""NetworkX: a graph of dictionaries that grows, a traversal that is suspended in the middle, views
that are alive, functions that are dispatched.

live: rounds=60 needs=networkx
"""
import sys

import networkx as nx
import pyheap


def main():
    rounds = int(sys.argv[1])
    graph = nx.barabasi_albert_graph(60, 2, seed=3)
    nx.set_edge_attributes(graph, {edge: i % 7 + 1 for i, edge in enumerate(graph.edges)}, "w")
    light = nx.subgraph_view(graph, filter_edge=lambda a, b: graph[a][b]["w"] < 6)
    walk = nx.edge_bfs(graph, 0)
    for r in range(rounds):
        edge = next(walk, None)
        if edge is None:
            walk = nx.edge_bfs(graph, r % 60)
            edge = next(walk)
        pyheap.epoch()
        a, b = edge
        graph[a][b]["w"] = graph[a][b]["w"] % 7 + 1
        graph.nodes[a]["seen"] = graph.nodes[a].get("seen", 0) + 1
        paths = nx.single_source_dijkstra_path_length(graph, a, weight="w")
        assert len(paths) == 60 and paths[b] <= graph[a][b]["w"]
        if r % 10 == 0:
            print(r, sum(paths.values()), light.number_of_edges(),
                  nx.number_connected_components(light),
                  nx.minimum_spanning_tree(graph, weight="w").size(weight="w"))


main()
