# SPDX-License-Identifier: MIT
"""OpenCV: filters on its pool of threads, features and a tracker of the background that remembers.

live: rounds=30 needs=cv2
"""
import sys

import cv2
import numpy as np
import pyheap

cv2.setNumThreads(3)


def main():
    rounds = int(sys.argv[1])
    background = cv2.createBackgroundSubtractorMOG2(history=20)
    random = np.random.default_rng(1)
    still = random.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for r in range(rounds):
        frame = still.copy()
        cv2.circle(frame, (20 + r * 7 % 280, 120), 15, (0, 255, 0), -1)
        mask = background.apply(frame)
        pyheap.epoch()  # the threads of the pool wait
        smooth = cv2.GaussianBlur(frame, (9, 9), 2)
        edges = cv2.Canny(cv2.cvtColor(smooth, cv2.COLOR_BGR2GRAY), 30, 90)
        small = cv2.resize(cv2.medianBlur(frame, 5), (80, 60), interpolation=cv2.INTER_AREA)
        assert mask.shape == (240, 320) and small.shape == (60, 80, 3)
        ok, png = cv2.imencode(".png", small)
        assert ok and np.array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR), small)
        if r % 10 == 0:
            print(r, int(mask.sum()), int(edges.sum()), int(small.sum()))


main()
