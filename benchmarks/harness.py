# SPDX-License-Identifier: MIT
"""harness - what the benchmarks have in common: running programs, pairing, what comes out

A benchmark is a module bench_*.py with a one-line docstring ("what is measured (target N)")
and a function run(bench) that returns an Outcome. Programs that are measured lie in programs/;
they report by printing one line of JSON.

Comparisons are paired: A and B run alternately (A B, B A, A B, ...), each pair gives one ratio,
and the median of the ratios counts. Times of different moments on a shared machine are not
comparable; the two of a pair nearly are.
"""
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
EXAMPLES = HERE.parent / "examples"
PATIENCE = 600  # seconds for one program; reached only if something is wrong


class Failed(Exception):
    """A measured program failed; the benchmark is shown as failed, with this text."""


@dataclasses.dataclass
class Stat:
    """Median, least and greatest of some measured values."""

    values: list

    @property
    def median(self):
        return statistics.median(self.values)

    def scaled(self, factor):
        return Stat([v * factor for v in self.values])

    def show(self, digits=2):
        if len(self.values) == 1:
            return f"{self.values[0]:.{digits}f}"
        return (f"{self.median:.{digits}f} "
                f"({min(self.values):.{digits}f} to {max(self.values):.{digits}f})")


def ratios(numerators, denominators):
    """Pair by pair."""
    return Stat([a / b for a, b in zip(numerators, denominators)])


def geometric_mean(values):
    return statistics.geometric_mean(values)


@dataclasses.dataclass
class Table:
    title: str
    columns: list
    rows: list = dataclasses.field(default_factory=list)

    def add(self, *cells):
        self.rows.append([str(c) for c in cells])


@dataclasses.dataclass
class Verdict:
    """One target: met when measured <= limit (or >= limit, with at_least)."""

    target: str
    what: str
    measured: float
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self):
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclasses.dataclass
class Outcome:
    tables: list = dataclasses.field(default_factory=list)
    verdicts: list = dataclasses.field(default_factory=list)
    plots: dict = dataclasses.field(default_factory=dict)  # file name -> SVG; None: is there
    notes: list = dataclasses.field(default_factory=list)
    raw: dict = dataclasses.field(default_factory=dict)  # whatever belongs into the JSON
    taken: str = ""  # when, from which commit, by which command, at which load
    machine: dict = dataclasses.field(default_factory=dict)  # where: machine.describe

    def table(self, title, *columns):
        t = Table(title, list(columns))
        self.tables.append(t)
        return t

    def target(self, *args, **kwargs):
        self.verdicts.append(Verdict(*args, **kwargs))


class Bench:
    """Where things are, and how to run them."""

    def __init__(self, bin_directory, directory, quick):
        self.bin = pathlib.Path(bin_directory)
        self.quick = quick
        self.python = sys.executable
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="pyheap-bench-", dir=directory))

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def rounds(self, usual, quick):
        return quick if self.quick else usual

    @contextlib.contextmanager
    def place(self, on=None):
        """A directory for pools and files, removed afterwards."""
        path = pathlib.Path(tempfile.mkdtemp(prefix="pyheap-bench-", dir=on or self.directory))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def under_pyheap(self, pool, *options):
        return [str(self.bin / "pyheap-run"), "--fresh", "--pool", str(pool), "--python",
                self.python, *options]

    def run(self, command, cwd, **kwargs):
        """Run to the end. @return (stdout, seconds). Raises Failed for a status other than 0."""
        started = time.perf_counter()
        done = subprocess.run([str(c) for c in command], cwd=cwd, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE, **kwargs)
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise Failed(f"{' '.join(str(c) for c in command)}: status {done.returncode}: "
                         f"{done.stderr.strip()[-400:]}")
        return done.stdout, seconds

    def program(self, name, *arguments, pyheap=True, options=(), on=None, **kwargs):
        """Run programs/NAME, under pyheap-run or in plain Python. @return what it reported."""
        with self.place(on) as place:
            command = self.under_pyheap(place / "pool.pm", *options) if pyheap else [self.python]
            out, _ = self.run([*command, PROGRAMS / name, *arguments], place, **kwargs)
            return report_of(out)


def report_of(output):
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed("the program reported nothing")
    return json.loads(lines[-1])


def alternate(kinds, rounds, run):
    """Run every kind once a round, every other round backwards. @return kind -> list."""
    results = {kind: [] for kind in kinds}
    for i in range(rounds):
        for kind in kinds if i % 2 == 0 else list(reversed(kinds)):
            results[kind].append(run(kind))
    return results


def available_memory():
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


def on_disk(path):
    """Bytes that a sparse file takes."""
    return os.stat(path).st_blocks * 512


def drop_caches():
    """@return whether it was possible: only root may."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return True
    except OSError:
        return False


def size_name(mebibytes):
    return f"{mebibytes // 1024} GiB" if mebibytes >= 1024 else f"{mebibytes} MiB"
