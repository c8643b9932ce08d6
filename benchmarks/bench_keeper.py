# SPDX-License-Identifier: MIT
"""The keeper's memory and CPU time, and the program's slowdown while it writes (target 9)."""
import harness


def run(bench):
    out = harness.Outcome()
    mebibytes = 1024
    report = bench.program("flush.py", mebibytes, bench.rounds(4, 2))
    out.raw = report
    slow = out.table(f"While the keeper writes {mebibytes} MiB", "the program's work",
                     "milliseconds a step, idle", "during the flush", "slowdown",
                     "keeper's CPU seconds", "commit, seconds")
    for name, words in (("python", "pure Python"), ("memory", "NumPy, 16 MiB added to")):
        samples = [s[name] for s in report["samples"] if s[name]["steps"]]
        if not samples:
            raise harness.Failed("the epoch was durable before the program could work")
        idle = harness.Stat([s["idle"] * 1e3 for s in samples])
        during = harness.Stat([s["during"] * 1e3 for s in samples])
        slow.add(words, idle.show(), during.show(),
                 harness.ratios(during.values, idle.values).show(),
                 harness.Stat([s["keeper_cpu"] for s in samples]).show(),
                 harness.Stat([s["commit"] for s in samples]).show())
    anonymous, file, shared = (kib * 1024 for kib in report["memory"])
    pages, staging = report["pages"], report["staging"]
    table = out.table("The keeper's resident memory, MiB", "", "MiB")
    table.add("anonymous", f"{anonymous / 2**20:.0f}")
    table.add("of files (the pool's mapping, code)", f"{file / 2**20:.0f}")
    table.add("shared (staging)", f"{shared / 2**20:.0f}")
    table.add("staging may take", f"{staging / 2**20:.0f}")
    bound = (64 << 20) + 32 * pages + staging
    out.target("9", f"keeper's resident memory, {mebibytes} MiB program",
               (anonymous + file + shared) / 2**20, bound / 2**20, " MiB")
    return out
