# SPDX-License-Identifier: MIT
"""Pause of epochs by the clock with 1 GiB changed, a tenth of it hot, against staged ones (target 7)."""
import json

import harness


def reported(bench, place, epochs, *options, how):
    command = bench.under_pyheap(place / "pool.pm", *options, harness.PROGRAMS / "clocked.py",
                                 1024, epochs, how)
    out, _ = bench.run(command, place)
    line = [line for line in out.splitlines() if line.startswith("[")][-1]
    return [s["pause"] * 1e3 for s in json.loads(line)[1:]]  # the first may be early


def run(bench):
    out = harness.Outcome()
    epochs = bench.rounds(4, 2)
    with bench.place() as place:
        staged = harness.Stat(reported(bench, place, epochs, how="own"))
    with bench.place() as place:
        clocked = harness.Stat(reported(bench, place, epochs, "--every", "4s", how="clock"))
    table = out.table("1 GiB changed since the last epoch, 10 % of it hot: pause, milliseconds",
                      "epochs", "pause")
    table.add("by the program, epoch()", staged.show(0))
    table.add("by the clock, --every 4s", clocked.show(0))
    ratio = clocked.median / staged.median
    out.target("7", "pause by the clock / staged pause", 100 * ratio, 20, " %")
    out.raw = {"staged": staged.values, "clocked": clocked.values}
    return out
