# SPDX-License-Identifier: MIT
"""How fast changed pages become durable, against O_DIRECT writes of the same bytes (target 4)."""
import harness
import svg


def run(bench):
    out = harness.Outcome()
    counts = [1000, 10000, 250000]
    with bench.place("/dev/shm") as shared, bench.place() as disk:
        report = bench.program("pause.py", 1024, bench.rounds(4, 2), shared / "copy",
                               *[f"{n}:1" for n in counts], "--direct", disk / "direct")
    out.raw = report
    table = out.table("From the first page copied to durable", "changed pages",
                      "commit, ms", "O_DIRECT + fdatasync, ms", "pyheap, MiB/s",
                      "O_DIRECT, MiB/s", "rate / rate")
    lines = {"pyheap": [], "O_DIRECT": []}
    for count in counts:
        samples = report[f"{count}:1"]
        commit = harness.Stat([s["commit"] for s in samples])
        direct = harness.Stat([s["direct"] for s in samples])
        mebibytes = count / 256
        ratio = harness.ratios(direct.values, commit.values)
        table.add(f"{count:,}", commit.scaled(1e3).show(1), direct.scaled(1e3).show(1),
                  f"{mebibytes / commit.median:.0f}", f"{mebibytes / direct.median:.0f}",
                  ratio.show())
        lines["pyheap"].append((count, mebibytes / commit.median))
        lines["O_DIRECT"].append((count, mebibytes / direct.median))
        if count == 250000:
            out.target("4", "durable throughput of 250,000 pages / O_DIRECT", ratio.median, 0.9,
                       " ×", at_least=True)
    out.plots["throughput.svg"] = svg.plot(
        "Durable throughput", "changed pages", "MiB/s", lines, log_x=True)
    out.notes.append("O_DIRECT: one writer, 8 MiB a write, into a new file beside the pool. "
                     "Both are of the same moment: epoch, write, epoch, write.")
    return out
