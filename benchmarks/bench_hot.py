# SPDX-License-Identifier: MIT
"""What tracking costs a program that rewrites a 1 GiB array between epochs (target 6)."""
import harness


def run(bench):
    out = harness.Outcome()
    mebibytes = 1024
    table = out.table(f"A {mebibytes} MiB array changed by NumPy, nanoseconds a page", "change",
                      "first pass after an epoch", "next pass, no epoch between", "difference",
                      "huge pages before, after")
    rests = out.table("The array rests: epochs with nothing changed, pages staged and pause", "was",
                      *(f"{n}." for n in range(1, 6)))
    for how, words in (("touch", "8 bytes of each page"), ("rewrite", "every byte")):
        report = bench.program("hot.py", mebibytes, bench.rounds(4, 2), how)
        out.raw[how] = report
        factor = 1e9 / report["pages"]
        after = harness.Stat([a * factor for a, _ in report["samples"]])
        again = harness.Stat([b * factor for _, b in report["samples"]])
        extra = harness.Stat([a - b for a, b in zip(after.values, again.values)])
        table.add(words, after.show(0), again.show(0), extra.show(0),
                  f"{report['huge_before'] >> 10} MiB, {report['huge_after'] >> 10} MiB")
        rests.add(words, *(f"{pages:,}, {pause * 1e3:.2f} ms" for pages, pause in report["rests"]))
        out.target("6", f"tracking, {words} rewritten after each epoch", extra.median, 25,
                   " ns a page")
        if how == "rewrite":
            out.target("6", "huge pages that survive",
                       100 * report["huge_after"] / max(report["huge_before"], 1), 90, " %",
                       at_least=True)
    return out
