# SPDX-License-Identifier: MIT
"""rasterio: a GeoTIFF that GDAL writes tile by tile, compressed on its own threads, with blocks in its
cache that are not in the file yet; a raster in memory that is warped, one that is read meanwhile.

live: rounds=36 needs=rasterio,numpy
"""
import os
import sys

import numpy as np
import pyheap
import rasterio
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(6)
    place = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": "EPSG:4326",
             "transform": from_origin(10, 50, 0.01, 0.01)}
    tiles = 6
    size = 64 * tiles
    start = random.random((size, size)).astype("f4")
    memory = MemoryFile()
    with memory.open(**place, width=size, height=size) as file:
        file.write(start, 1)
    source = memory.open()
    written, mirror, total = None, None, 0.0
    for r in range(rounds):
        row, column = divmod(r % tiles ** 2, tiles)
        if written is None:
            mirror = np.zeros((size, size), dtype="f4")
            written = rasterio.open("map.tif", "w", **place, width=size, height=size, tiled=True,
                                    blockxsize=64, blockysize=64, compress="deflate",
                                    num_threads=2)
        at = Window(column * 64, row * 64, 64, 64)
        found = source.read(1, window=at) + r
        written.write(found, 1, window=at)
        mirror[row * 64:row * 64 + 64, column * 64:column * 64 + 64] = found
        pyheap.epoch()  # tiles that are in the cache, or with a thread
        warped = np.zeros((50, 50), dtype="f4")
        reproject(rasterio.band(source, 1), warped, dst_crs="EPSG:32632", num_threads=2,
                  dst_transform=from_origin(600000, 5530000, 1000, 1000),
                  resampling=Resampling.bilinear)
        total += float(warped.sum())
        if r % tiles ** 2 == tiles ** 2 - 1 or r == rounds - 1:
            written.close()
            written = None
            with rasterio.open("map.tif") as again:
                assert np.array_equal(again.read(1), mirror)
                assert again.crs.to_epsg() == 4326
        if r % 10 == 0:
            print(r, f"{total:.2f} {mirror.mean():.5f}")
    source.close()
    memory.close()
    os.remove("map.tif")


main()
