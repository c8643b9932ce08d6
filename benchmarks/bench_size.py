# SPDX-License-Identifier: MIT
"""Pause and commit with 1,000 changed pages, from small to large heaps and 1 to 64 threads (target 3)."""
import harness
import svg

PAGES = 1000
TARGET = 8192  # mebibytes: the heap that the target speaks of
OTHERS = 4 << 30  # bytes of memory for staging, the page cache, and whatever else runs
THREADS = [1, 2, 4, 8, 16, 32, 64]


def heap_sizes(bench):
    """From 64 MiB to what the machine holds; the quick form to 1 GiB."""
    room = harness.available_memory() - OTHERS
    sizes = [64, 256, 1024]
    while not bench.quick and sizes[-1] < 1 << 20:
        sizes.append(sizes[-1] * 2 if sizes[-1] > 1024 else 4096)
    return [mebibytes for mebibytes in sizes if mebibytes << 20 <= room]


def run(bench):
    out = harness.Outcome()
    rounds = bench.rounds(11, 5)
    sizes = heap_sizes(bench)
    table = out.table(f"{PAGES:,} changed pages, heap by heap, milliseconds", "heap",
                      "epoch() takes", "commit", "pages staged")
    calls, commits = {}, {}
    # The smallest again at the end: what the machine itself changed meanwhile is seen.
    for mebibytes in [*sizes, sizes[0]]:
        with bench.place("/dev/shm") as shared:
            samples = bench.program("pause.py", mebibytes, rounds, shared / "copy",
                                    f"{PAGES}:1")[f"{PAGES}:1"]
        call = harness.Stat([s["call"] * 1e3 for s in samples])
        commit = harness.Stat([s["commit"] * 1e3 for s in samples])
        table.add(harness.size_name(mebibytes), call.show(), commit.show(),
                  f"{harness.Stat([s['pages_staged'] for s in samples]).median:.0f}")
        calls.setdefault(mebibytes, []).extend(call.values)
        commits.setdefault(mebibytes, []).extend(commit.values)
    least, most = sizes[0], min(sizes[-1], TARGET)
    for name, values in (("pause", calls), ("commit", commits)):
        ratio = harness.Stat(values[most]).median / harness.Stat(values[least]).median
        out.target("3", f"{name}, {harness.size_name(most)} heap / {harness.size_name(least)}",
                   ratio, 1.5, " ×")
    ticks = [(m, harness.size_name(m)) for m in sizes]
    out.plots["size.svg"] = svg.plot(
        f"Cost against heap size ({PAGES:,} changed pages)", "heap", "milliseconds",
        {"epoch()": curve(calls, sizes), "commit": curve(commits, sizes)}, log_x=True,
        x_ticks=ticks)

    report = bench.program("threads.py", rounds, *THREADS)
    threads = out.table(f"{PAGES:,} changed pages, thread by thread, milliseconds", "threads",
                        "epoch() takes", "commit")
    points = []
    for count in THREADS:
        call = harness.Stat([s["call"] * 1e3 for s in report[str(count)]])
        commit = harness.Stat([s["commit"] * 1e3 for s in report[str(count)]])
        threads.add(count, call.show(), commit.show())
        points.append((count, call.median, min(call.values), max(call.values)))
    out.plots["threads.svg"] = svg.plot(
        f"Pause against threads ({PAGES:,} changed pages)", "threads", "milliseconds",
        {"epoch()": points}, log_x=True, x_ticks=[(n, str(n)) for n in THREADS])
    out.raw = {"calls": calls, "commits": commits, "threads": report}
    return out


def curve(values, sizes):
    return [(m, harness.Stat(values[m]).median, min(values[m]), max(values[m])) for m in sizes]
