# SPDX-License-Identifier: MIT
"""Pause of epochs by the clock with 1 GiB changed, a tenth of it hot, against staged ones (target 7)."""
import json

import harness


def reported(bench, place, epochs, *options, how):
    command = bench.under_pyheap(place / "pool.pm", *options, harness.PROGRAMS / "clocked.py",
                                 1024, epochs, how)
    out, _ = bench.run(command, place)
    line = [line for line in out.splitlines() if line.startswith("[")][-1]
    return json.loads(line)[1:]  # the first may be early


def run(bench):
    out = harness.Outcome()
    epochs = bench.rounds(4, 2)
    with bench.place() as place:
        staged = reported(bench, place, epochs, how="own")
    with bench.place() as place:
        clocked = reported(bench, place, epochs, "--every", "4s", how="clock")
    table = out.table("1 GiB changed since the last epoch, 10 % of it hot: milliseconds", "epochs",
                      "pause", "part of it waiting for room", "pages copied in the pause")

    def stat(samples, value):
        return harness.Stat([value(s) for s in samples])

    def copying(sample):  # a full ring is the disk's affair
        return (sample["pause"] - sample["wait"]) * 1e3

    for name, samples in (("by the program, epoch()", staged),
                          ("by the clock, --every 4s", clocked)):
        table.add(name, stat(samples, lambda s: s["pause"] * 1e3).show(0),
                  stat(samples, lambda s: s["wait"] * 1e3).show(0),
                  f"{stat(samples, lambda s: s['staged'] - s['ahead']).median:,.0f}")
    ratio = stat(clocked, lambda s: s["pause"] * 1e3).median / stat(staged, copying).median
    out.target("7", "pause by the clock / staged pause without waiting", 100 * ratio, 20, " %")
    out.raw = {"staged": staged, "clocked": clocked}
    return out
