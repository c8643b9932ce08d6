# SPDX-License-Identifier: MIT
"""Allocation-heavy pure Python under pyheap-run, without epochs and with one a second (target 11)."""
import importlib.metadata
import os

import harness

PLAIN, WITHOUT, WITH = "plain", "no epochs", "an epoch a second"

# Of pyperformance, what spends its time in objects of Python that come and go.
NAMES = ["async_generators", "chaos", "comprehensions", "coroutines", "deepcopy", "deltablue",
         "float", "gc_collect", "generators", "go", "hexiom", "json_dumps", "json_loads",
         "logging:format", "nqueens", "pickle:--pure-python:pickle",
         "pickle:--pure-python:unpickle", "pyflate", "raytrace", "regex_compile", "richards",
         "xml_etree:parse"]


def run(bench):
    out = harness.Outcome()
    seconds, rounds = (0.6, 1) if bench.quick else (0.7, 5)
    table = out.table("CPU seconds under plain python3, and times that under pyheap-run",
                      "pyperformance", "plain", "no epochs", "an epoch a second")
    medians = {"cpu": ([], []), "seconds": ([], [])}
    taken = 0
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # the order of sets weighs more than we
    for name in NAMES:
        n = bench.program("pyperformance_workload.py", name, "--calibrate", seconds,
                          pyheap=False, env=environment)["repetitions"]

        def one(kind, name=name, n=n):
            extra = [1] if kind == WITH else []
            return bench.program("pyperformance_workload.py", name, n, *extra,
                                 pyheap=kind != PLAIN, env=environment)

        reports = harness.alternate([PLAIN, WITHOUT, WITH], rounds, one)
        taken += sum(r["epochs"] for r in reports[WITH])
        for clock, lists in medians.items():
            times = {kind: [r[clock] for r in rs] for kind, rs in reports.items()}
            a = harness.ratios(times[WITHOUT], times[PLAIN])
            b = harness.ratios(times[WITH], times[PLAIN])
            lists[0].append(a.median)
            lists[1].append(b.median)
            if clock == "cpu":
                table.add(name, harness.Stat(times[PLAIN]).show(), a.show(), b.show())
        out.raw[name] = reports
    means = {clock: [harness.geometric_mean(ratios) for ratios in lists]
             for clock, lists in medians.items()}
    for clock, words in (("cpu", "geometric mean of the medians"),
                         ("seconds", "the same by the wall clock")):
        a, b = means[clock]
        table.add(words, "1", f"{a:.3f}", f"{b:.3f}")
    a, b = means["cpu"]
    out.target("11", "pure Python, no epochs, geometric mean / stock", a, 1.00, " ×")
    out.target("11", "pure Python, an epoch a second, geometric mean / stock", b, 1.03, " ×")
    version = importlib.metadata.version("pyperformance")
    out.notes.append(f"The workloads of pyperformance {version}, the same number of repetitions "
                     "and the same order of hashes in each run. CPU time is the program's, "
                     "user and system, with the epochs; the keeper's is not in it. "
                     f"{taken} epochs were taken in all the runs with epochs; start-up and the "
                     "first, whole epoch are not in these times but in `startup`.")
    return out
