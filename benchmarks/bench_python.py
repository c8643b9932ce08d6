# SPDX-License-Identifier: MIT
"""Allocation-heavy pure Python under pyheap-run, without epochs and with one a second (target 11)."""
import ast

import harness

PLAIN, WITHOUT, WITH = "plain", "no epochs", "an epoch a second"


def names():
    """The workloads, and what each is, as their program lists them."""
    tree = ast.parse((harness.PROGRAMS / "workloads.py").read_text())
    docs = {f.name: ast.get_docstring(f) for f in tree.body if isinstance(f, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "WORKLOADS":
            return {w.id: docs[w.id] for w in node.value.elts}
    raise harness.Failed("workloads.py lists no workloads")


def run(bench):
    out = harness.Outcome()
    seconds, rounds = (0.6, 1) if bench.quick else (0.7, 3)
    table = out.table("CPU seconds under plain python3, and times that under pyheap-run",
                      "workload", "", "plain", "no epochs", "an epoch a second")
    medians = {"cpu": ([], []), "seconds": ([], [])}
    taken = 0
    for name, doc in names().items():
        n = bench.program("workloads.py", name, "--calibrate", seconds,
                          pyheap=False)["repetitions"]

        def one(kind, name=name, n=n):
            extra = [1] if kind == WITH else []
            return bench.program("workloads.py", name, n, *extra, pyheap=kind != PLAIN)

        reports = harness.alternate([PLAIN, WITHOUT, WITH], rounds, one)
        taken += sum(r["epochs"] for r in reports[WITH])
        for clock, lists in medians.items():
            times = {kind: [r[clock] for r in rs] for kind, rs in reports.items()}
            a = harness.ratios(times[WITHOUT], times[PLAIN])
            b = harness.ratios(times[WITH], times[PLAIN])
            lists[0].append(a.median)
            lists[1].append(b.median)
            if clock == "cpu":
                table.add(name, doc, harness.Stat(times[PLAIN]).show(), a.show(), b.show())
        out.raw[name] = reports
    means = {clock: [harness.geometric_mean(ratios) for ratios in lists]
             for clock, lists in medians.items()}
    for clock, words in (("cpu", "of the medians"), ("seconds", "the same by the wall clock")):
        a, b = means[clock]
        table.add("geometric mean", words, "1", f"{a:.3f}", f"{b:.3f}")
    a, b = means["cpu"]
    out.target("11", "pure Python, no epochs, geometric mean / stock", a, 1.00, " ×")
    out.target("11", "pure Python, an epoch a second, geometric mean / stock", b, 1.03, " ×")
    out.notes.append("CPU time is the program's, user and system, with the epochs; the keeper's "
                     f"is not in it. {taken} epochs were taken in all the runs with epochs; "
                     "start-up and the first, whole epoch are not in these times but in "
                     "`startup`.")
    return out
