# SPDX-License-Identifier: MIT
"""Shapely: geometries of GEOS, prepared ones and a tree of them, each thread with a context of its
own that is released at its end.

live: rounds=60 needs=shapely
"""
import sys
import threading

import pyheap
import shapely
from shapely import affinity


def main():
    rounds = int(sys.argv[1])
    cells = [shapely.box(i, j, i + 0.9, j + 0.9) for i in range(12) for j in range(12)]
    tree = shapely.STRtree(cells)
    island = shapely.Point(6, 6).buffer(3)
    shapely.prepare(island)
    areas = []
    for r in range(rounds):
        moved = affinity.translate(island, r % 5 - 2, r % 3 - 1)
        thread = threading.Thread(target=lambda shape: areas.append(shape.buffer(0.5).area),
                                  args=(moved,))
        thread.start()
        pyheap.epoch()
        thread.join()
        hit = tree.query(moved, predicate="intersects")
        union = shapely.union_all([cells[i] for i in hit]).intersection(moved)
        assert 0 < union.area < moved.area < areas[-1]
        assert shapely.from_wkb(shapely.to_wkb(union)).equals(union)
        if r % 10 == 0:
            print(r, len(hit), f"{union.area:.6f}", f"{areas[-1]:.6f}",
                  sum(shapely.intersects(island, cells)))


main()
