# SPDX-License-Identifier: MIT
"""matplotlib, Agg: a figure that grows, drawn to pixels; text with FreeType; epochs from inside
a draw event.

live: rounds=15 needs=matplotlib
"""
import hashlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pyheap


def pixels(figure):
    figure.canvas.draw()
    return hashlib.sha256(np.asarray(figure.canvas.buffer_rgba())).hexdigest()


def main():
    rounds = int(sys.argv[1])
    figure, axes = plt.subplots(figsize=(4, 3))
    x = np.linspace(0, 10, 200)
    line, = axes.plot(x, np.sin(x), label=r"$\sin x$")
    axes.legend()
    drawing = False

    def drawn(event):
        if drawing:
            pyheap.epoch("inside a draw event")

    figure.canvas.mpl_connect("draw_event", drawn)
    for r in range(rounds):
        line.set_ydata(np.sin(x + r / 10))
        axes.set_title(f"round {r}")
        drawing = True
        one = pixels(figure)
        drawing = False
        assert one == pixels(figure), "the same figure has other pixels"
        if r % 5 == 0:
            print(r, one[:16])
    figure.savefig("last.png", metadata={"Software": None})
    print(len(axes.texts), axes.get_title())


main()
