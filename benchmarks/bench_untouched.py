# SPDX-License-Identifier: MIT
"""Pages written after reading every object of a 400,000-object heap and gc.collect() (target 5)."""
import harness

OBJECTS = 400000


def run(bench):
    out = harness.Outcome()
    report = bench.program("objects.py", OBJECTS, bench.rounds(5, 3))
    out.raw = report
    table = out.table(f"{OBJECTS:,} objects, {report['pages']:,} pages in all", "what",
                      "pages dirtied and staged", "pages written", "written / dirtied, %")
    for name, words in (("read", "every object read"), ("collect", "gc.collect()"),
                        ("both", "both")):
        staged = harness.Stat([s[name][0] for s in report["samples"]])
        written = harness.Stat([s[name][1] for s in report["samples"]])
        part = harness.ratios(written.values, staged.values).scaled(100)
        table.add(words, staged.show(0), written.show(0), part.show())
        if name == "both":
            out.target("5", "read all + gc.collect(): pages written / dirtied", part.median, 1.0,
                       " %")
    return out
