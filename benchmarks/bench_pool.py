# SPDX-License-Identifier: MIT
"""The pool's size and write amplification after many epochs (target 10)."""
import harness
import svg

RETAINED = 2  # pyheap-run's default --keep


def run(bench):
    out = harness.Outcome()
    mebibytes = 128 if bench.quick else 256
    epochs, count = (60, 1280) if bench.quick else (240, 2560)
    table = out.table(f"{epochs} epochs of {count:,} changed pages each, {mebibytes} MiB heap",
                      "writes", "pages written", "bytes written / those pages",
                      "pool at most, MiB", "pool at the end, MiB",
                      "at most / (live + retained)", "at the end / (live + retained)")
    lines = {}
    for how, words, limit in (("uniform", "uniform", 2.0), ("hot", "90 % to 10 %", 1.5)):
        with bench.place() as place:
            pool = place / "pool.pm"
            text, _ = bench.run(bench.under_pyheap(pool, harness.PROGRAMS / "writes.py",
                                                   mebibytes, epochs, count, how, pool), place)
        report = harness.report_of(text)
        out.raw[how] = report
        amplification = report["bytes"] / (report["pages"] * 4096)
        allowed = report["live"] + RETAINED * report["epoch_pages"] * 4096
        most = max(*report["sizes"], report["last"])
        table.add(words, f"{report['pages']:,}", f"{amplification:.2f}", f"{most / 2**20:.0f}",
                  f"{report['last'] / 2**20:.0f}", f"{most / allowed:.2f}",
                  f"{report['last'] / allowed:.2f}")
        limit_bytes = 1.5 * report["live"] + RETAINED * report["epoch_pages"] * 4096
        out.target("10", f"pool at most / (1.5 × live + retained epochs), {words}",
                   most / limit_bytes, 1.0, " ×")
        out.target("10", f"write amplification, {words}", amplification, limit, " ×")
        step = max(1, epochs // 60)
        lines[words] = [(i + 1, size / 2**20) for i, size in enumerate(report["sizes"])][::step]
    lines["live memory"] = [(1, mebibytes), (epochs, mebibytes)]
    out.plots["pool.svg"] = svg.plot("The pool on disk, epoch by epoch", "epoch", "MiB", lines)
    out.notes.append("Counted after a quarter of the epochs, by /proc/PID/io of the keeper. "
                     "The first epoch alone is as large as the heap, so that 240 epochs are "
                     "about ten times the heap. Live memory is what the first epoch found "
                     "present. The pool also has a copy of each file that the program maps.")
    return out
