# SPDX-License-Identifier: MIT
"""geopandas: a table of regions joined with one of points, overlaid and dissolved; projections of
PROJ; a GeoPackage that GDAL writes in pieces and reads back.

live: rounds=10 epochs=2 needs=geopandas
"""
import os
import sys

import geopandas
import numpy as np
import pandas as pd
import pyheap
from shapely.geometry import Point, box


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(3)
    cells = geopandas.GeoDataFrame(
        {"cell": range(36)}, crs="EPSG:4326",
        geometry=[box(10 + i, 50 + j, 11 + i, 51 + j) for i in range(6) for j in range(6)])
    island = geopandas.GeoDataFrame({"name": ["island"]}, geometry=[Point(13, 53).buffer(2)],
                                    crs="EPSG:4326")
    counts = pd.Series(0, index=range(36))
    for r in range(rounds):
        places = geopandas.GeoDataFrame(
            {"weight": random.integers(1, 9, 50)}, crs="EPSG:4326",
            geometry=geopandas.points_from_xy(10 + 6 * random.random(50),
                                              50 + 6 * random.random(50)))
        joined = places.sjoin(cells, predicate="within")
        pyheap.epoch("joined")
        counts = counts.add(joined.groupby("cell")["weight"].sum(), fill_value=0)
        within = cells.overlay(island, how="intersection", keep_geom_type=True).to_crs("EPSG:3035")
        whole = within.dissolve().area.iloc[0]
        assert abs(within.area.sum() - whole) < 1e-6 * whole
        places.to_file("places.gpkg", layer=f"round{r % 3}", driver="GPKG")
        pyheap.epoch("a layer is written")
        again = geopandas.read_file("places.gpkg", layer=f"round{r % 3}")
        assert again.crs == places.crs and (again["weight"] == places["weight"]).all()
        assert again.geometry.geom_equals_exact(places.geometry, 1e-9).all()
        if r % 5 == 0:
            print(r, len(joined), int(counts.sum()), f"{whole / 1e6:.3f}")
    os.remove("places.gpkg")


main()
