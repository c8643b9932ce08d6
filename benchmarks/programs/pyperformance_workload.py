# SPDX-License-Identifier: MIT
"""Run the workload of a pyperformance benchmark in this very process.

    pyperformance_workload.py NAME[:ARGUMENT]... --calibrate SECONDS
        how many repetitions that takes
    pyperformance_workload.py NAME[:ARGUMENT]... REPETITIONS [SECONDS_BETWEEN_EPOCHS]
        report the time

The benchmark's script runs as it is, but in place of pyperf, which would start processes, it
finds a module that only notes what it wants timed. All of that once is one repetition. With
epochs the first, whole one is taken before the clock starts, and the next after half of the
time between epochs, so that a run of N seconds has about N of them.
"""
import argparse
import asyncio
import importlib.util
import json
import math
import pathlib
import platform
import runpy
import sys
import time
import types

try:
    import pyheap
except ImportError:
    pyheap = None


class Runner:
    """What the scripts use of pyperf.Runner."""

    noted = []

    def __init__(self, **_):
        self.metadata = {}
        self.argparser = argparse.ArgumentParser()

    def parse_args(self):
        return self.argparser.parse_args()

    def bench_func(self, _, function, *arguments, **__):
        self.noted.append(lambda: function(*arguments))

    def bench_time_func(self, _, function, *arguments, **__):
        self.noted.append(lambda: function(1, *arguments))

    def bench_async_func(self, _, function, *arguments, **__):
        self.noted.append(lambda: asyncio.run(function(*arguments)))


def load(name, *arguments):
    """@return a function that does all that the benchmark times, once."""
    package = pathlib.Path(importlib.util.find_spec("pyperformance").origin).parent
    script = package / "data-files" / "benchmarks" / f"bm_{name}" / "run_benchmark.py"
    sys.modules["pyperf"] = types.SimpleNamespace(
        Runner=Runner, perf_counter=time.perf_counter,
        python_implementation=lambda: platform.python_implementation().lower())
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    # The functions keep the script's globals, which runpy would clear otherwise.
    load.script = runpy.run_path(str(script), run_name="__main__")
    if not Runner.noted:
        raise SystemExit(f"{script} has nothing timed")

    def work():
        for function in Runner.noted:
            function()
    return work


def calibrate(work, seconds):
    n, started = 0, time.perf_counter()
    while n == 0 or time.perf_counter() - started < seconds:
        work()
        n += 1
    return n


def measure(work, repetitions, every):
    if every:
        pyheap.epoch(wait=True)
    started, cpu, epochs = time.perf_counter(), time.process_time(), 0
    due = started + every / 2 if every else math.inf
    for _ in range(repetitions):
        work()
        if time.perf_counter() >= due:
            pyheap.epoch()
            epochs += 1
            due += every
    return {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - started,
            "epochs": epochs}


def main():
    name, how, *more = sys.argv[1:]
    work = load(*name.split(":"))
    work()
    if how == "--calibrate":
        report = {"repetitions": calibrate(work, float(more[0]))}
    else:
        report = measure(work, int(how), float(more[0]) if more else 0)
    sys.stdout = sys.__stdout__
    print(json.dumps(report))


if __name__ == "__main__":
    main()
