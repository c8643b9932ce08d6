# SPDX-License-Identifier: MIT
"""Start-up, the first epoch, what typical programs write per epoch, file systems, trackers."""
import importlib.util

import harness
import machine


def start_up(bench, out):
    plain, hooked = [bench.python, "-c", "pass"], "pyheap-run"

    def one(kind):
        with bench.place() as place:
            command = plain
            if kind == hooked:
                command = bench.under_pyheap(place / "pool.pm", "-c", "pass")
            return bench.run(command, place)[1] * 1e3

    times = harness.alternate(["python3", hooked], bench.rounds(25, 8), one)
    extra = harness.Stat([b - a for a, b in zip(times["python3"], times[hooked])])
    table = out.table("Start-up and end, `-c pass`, milliseconds", "python3", "pyheap-run",
                      "difference")
    table.add(harness.Stat(times["python3"]).show(1), harness.Stat(times[hooked]).show(1),
              extra.show(1))
    out.target("also", "start-up of pyheap-run over python3", extra.median, 30, " ms")
    out.raw["startup"] = times


def typical(bench, out):
    table = out.table("First and later epochs", "program", "first: epoch() takes, ms",
                      "first: durable, ms", "first: MiB written", "later: epoch() takes, ms",
                      "later: pages staged", "later: pages written", "later: KiB written")
    kinds = {"bare": "Python alone, nothing happens", "numpy": "NumPy imported",
             "array": "256 MiB array, a 16th changes", "json_text": "JSON", "tables":
             "dictionaries", "sorting": "objects sorted", "cycles": "garbage cycles",
             "bodies": "n-body"}
    for kind, words in kinds.items():
        reports = [bench.program("first.py", kind, 10) for _ in range(bench.rounds(3, 1))]
        firsts = [r["first"] for r in reports]
        later = [s for r in reports for s in r["next"]]
        out.raw[kind] = reports
        table.add(words, harness.Stat([f["call"] * 1e3 for f in firsts]).show(1),
                  harness.Stat([f["commit"] * 1e3 for f in firsts]).show(1),
                  f"{firsts[0]['bytes'] / 2**20:.1f}",
                  harness.Stat([s["call"] * 1e3 for s in later]).show(),
                  harness.Stat([s["staged"] for s in later]).show(0),
                  harness.Stat([s["written"] for s in later]).show(0),
                  harness.Stat([s["bytes"] / 1024 for s in later]).show(0))


def file_systems(bench, out):
    table = out.table("10,000 changed pages, file system by file system, milliseconds", "pool on",
                      "epoch() takes", "commit")
    for directory in (str(bench.directory), "/dev/shm"):
        with bench.place("/dev/shm") as shared:
            samples = bench.program("pause.py", 256, bench.rounds(10, 4), shared / "copy",
                                    "10000:1", on=directory)["10000:1"]
        table.add(machine.file_system(directory),
                  harness.Stat([s["call"] * 1e3 for s in samples]).show(),
                  harness.Stat([s["commit"] * 1e3 for s in samples]).show())


def denying():
    """What the live tests deny calls with."""
    path = harness.HERE.parent / "tests" / "live" / "denied.py"
    spec = importlib.util.spec_from_file_location("denied", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.denying


def trackers(bench, out):
    """Where the kernel denies tracking, every epoch copies the whole program."""
    deny = denying()
    table = out.table("Trackers: changed pages of a 256 MiB array, milliseconds", "denied",
                      "changed pages", "pages staged", "pages written", "epoch() takes",
                      "commit")
    for denied in ((), ("userfaultfd",), ("PAGEMAP_SCAN",)):
        with bench.place("/dev/shm") as shared:
            report = bench.program("pause.py", 256, bench.rounds(5, 2), shared / "copy", "0:1",
                                   "1000:1", preexec_fn=deny(*denied) if denied else None)
        for case in ("0:1", "1000:1"):
            def stat(name, factor=1, samples=report[case]):
                return harness.Stat([s[name] * factor for s in samples])
            table.add(" and ".join(denied) or "nothing", case.partition(":")[0],
                      stat("pages_staged").show(0), stat("pages_written").show(0),
                      stat("call", 1e3).show(), stat("commit", 1e3).show())


def run(bench):
    out = harness.Outcome()
    start_up(bench, out)
    typical(bench, out)
    file_systems(bench, out)
    trackers(bench, out)
    return out
