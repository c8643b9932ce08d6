# SPDX-License-Identifier: MIT
"""scikit-image and PyWavelets: Cython filters over memory views, transforms back and forth, labels.

live: rounds=15 needs=skimage,pywt,numpy
"""
import sys

import numpy as np
import pyheap
import pywt
from skimage import filters, measure, morphology, segmentation


def main():
    rounds = int(sys.argv[1])
    random = np.random.default_rng(5)
    picture = random.random((48, 48))
    for r in range(rounds):
        coefficients = pywt.wavedec2(picture, "db2", level=2)
        pyheap.epoch()
        again = pywt.waverec2(coefficients, "db2")
        assert np.allclose(again, picture)
        smooth = filters.gaussian(picture, 2)
        mask = smooth > filters.threshold_otsu(smooth)
        labels = measure.label(morphology.dilation(mask))
        regions = segmentation.watershed(-smooth, labels, mask=mask)
        areas = sorted(int(region.area) for region in measure.regionprops(regions))
        picture = np.roll(picture, r % 5, axis=r % 2) * 0.9 + random.random((48, 48)) * 0.1
        if r % 10 == 0:
            print(r, areas[-3:], f"{picture.sum():.6f}", len(coefficients))


main()
