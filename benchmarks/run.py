# SPDX-License-Identifier: MIT
"""run - run the benchmarks and write their results; scripts/bench calls it

    run.py --bin BIN [--quick] [--only NAME]... [--directory DIR] [--results DIR]

With --only what was measured before of the others stays in the results; each benchmark's own
figures are always from one run.
"""
import argparse
import importlib
import os
import pathlib
import shlex
import sys
import time

import harness
import machine
import report

NAMES = ["heat", "pause", "size", "throughput", "untouched", "hot", "clocked", "recovery",
         "keeper", "pool", "python", "startup"]


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench", description="Measure pyheap.")
    parser.add_argument("--bin", required=True, help="directory of pyheap-run")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: 3 minutes")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME",
                        help="one of: " + ", ".join(NAMES) + "; may be repeated")
    parser.add_argument("--directory", help="where pools are made while measuring (default: "
                        "beside BIN); needs as much room as there is memory")
    parser.add_argument("--results", type=pathlib.Path,
                        default=harness.HERE / "results", help="where results are written")
    return parser.parse_args()


def main():
    args = parse_arguments()
    directory = pathlib.Path(args.directory or pathlib.Path(args.bin).resolve().parent)
    about, commit, load = machine.describe(directory), machine.commit(), machine.load()
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    bench = harness.Bench(args.bin, directory, args.quick)
    started, docs, outcomes, failures = time.monotonic(), {}, {}, 0
    try:
        for name in args.only or NAMES:
            module = importlib.import_module(f"bench_{name}")
            docs[name] = module.__doc__.strip().partition("\n")[0]
            begun = time.monotonic()
            try:
                outcomes[name] = module.run(bench)
            except harness.Failed as error:
                failures += 1
                outcomes[name] = harness.Outcome(notes=[f"**Failed**: {error}"])
            report.print_outcome(name, docs[name], outcomes[name])
            print(f"({time.monotonic() - begun:.0f} s)", flush=True)
    finally:
        bench.close()
    report.print_summary(outcomes)
    words = ["scripts/bench"] + (["--quick"] if args.quick else [])
    words += [w for name in args.only or [] for w in ("--only", name)]
    taken = (f"`{shlex.join(words)}` on {machine.today()}, commit {commit}, "
             f"{(time.monotonic() - started) / 60:.0f} minutes, load {load} before and "
             f"{machine.load()} after")
    for outcome in outcomes.values():
        outcome.taken, outcome.machine = taken, about
    old_docs, old_outcomes = report.load(args.results) if args.only else ({}, {})
    docs, outcomes = old_docs | docs, old_outcomes | outcomes
    report.write(args.results, docs, outcomes)
    if not args.quick and args.results == harness.HERE / "results":
        report.put_targets(harness.HERE / "README.md", outcomes)
        report.put_main_table(harness.HERE.parent / "README.md", outcomes["heat"])
    print(f"\nwritten to {os.path.relpath(args.results)}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
