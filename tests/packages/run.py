#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - real packages from PyPI, and every state a program is in: killed and recovered

    tests/packages/run.py [--bin DIR] [--venvs DIR] [--only NAME]... [--on NAME]... [--kills N]
                          [--seconds T] [--seed S] [--table FILE] [--offline] [--keep]

For each interpreter found a virtual environment with what PyPI has for it, then each program of
programs/ in a chain of kills and recoveries, exactly as tests/live does it. Every run adds its
lines to the table of what was tried and what happened. Exit status 1 if anything failed.
"""
import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))

import interpreters  # noqa: E402
import run as live  # noqa: E402

PACKAGES = ["numpy", "scipy", "pandas", "matplotlib", "pillow", "lxml", "h5py", "numba", "cython",
            "setuptools", "cffi", "regex", "uvloop", "coverage"]
TORCH = "torch==2.13.0"  # an exact version, which may be a local build for the CPU
TORCH_PYTHON = (3, 11)
DISTRIBUTION = {"PIL": "pillow"}

# In the virtual environment: the versions of the modules named, or why one cannot be imported.
LOOK = """
import importlib, importlib.metadata, json, sys
found = {}
for module, name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module)
        found[module] = importlib.metadata.version(name)
    except Exception as error:
        found[module] = None
json.dump(found, sys.stdout)
"""

HEAD = """# What was tried

Written by `scripts/test-packages`: each program of [tests/packages](../tests/packages/README.md) is started under `pyheap-run`, killed with SIGKILL and recovered again and again until it ends, and must leave behind what it leaves in plain Python. A line says what the last such run found.

"""


class Environment:
    """A virtual environment on one interpreter, with the packages that there are for it."""

    def __init__(self, base, directory, offline):
        version = subprocess.run([base, "-c", "import platform; print(platform.python_version())"],
                                 capture_output=True, text=True, check=True).stdout.strip()
        self.name = version + (" of Debian" if base == interpreters.DEBIAN else "")
        self.short = tuple(map(int, version.split(".")[:2]))
        self.path = directory / ("venv-" + self.name.replace(" ", "-"))
        self.python = str(self.path / "bin" / "python")
        if not os.path.exists(self.python):
            subprocess.run([base, "-m", "venv", self.path], check=True)
        if not offline:
            self.install(base)
        # In plain Python `import pyheap` is the stand-in; under pyheap-run the built-in is first.
        site, = self.path.glob("lib/python3*/site-packages")
        (site / "pyheap-stand-in.pth").write_text(str(ROOT / "pyhook" / "python") + "\n")

    def install(self, base):
        """What has no wheel for this interpreter is left out, one by one."""
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--only-binary", ":all:"]
        wanted = PACKAGES + ([TORCH] if self.short == TORCH_PYTHON and base != interpreters.DEBIAN
                             else [])
        if subprocess.run([*pip, *wanted], stderr=subprocess.DEVNULL).returncode != 0:
            for package in wanted:
                subprocess.run([*pip, package], stderr=subprocess.DEVNULL)

    def versions(self, modules):
        pairs = [(m, DISTRIBUTION.get(m, m)) for m in modules]
        done = subprocess.run([self.python, "-c", LOOK, json.dumps(pairs)], capture_output=True,
                              text=True, check=True)
        return json.loads(done.stdout)


class Subject(live.Program):
    """A program, with words that only these have: `python=3.12` (at least), `environment=`."""

    def __init__(self, path):
        about = dict(word.split("=", 1) for line in path.read_text().splitlines()
                     if line.startswith("live:") for word in line[5:].split())
        self.oldest = tuple(map(int, about.pop("python", "3.9").split(".")))
        self.environment = dict([about.pop("environment").split("=")]
                                if "environment" in about else [])
        needs = about.pop("needs", "")
        super().__init__(path, **about)
        self.modules = needs.split(",") if needs else []


class Table:
    """docs/compatibility.md: one line for each program and interpreter, the newest of each."""

    COLUMNS = ["program", "what it uses", "Python", "what happened", "day", "kernel"]

    def __init__(self, path):
        self.path = path
        self.rows = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| ") and len(cells) == len(self.COLUMNS) \
                    and cells != self.COLUMNS and cells[0] != "---":
                self.rows[cells[0], cells[2]] = cells

    def add(self, program, uses, python, happened):
        self.rows[program, python] = [program, uses, python, happened.replace("|", "/"),
                                      str(datetime.date.today()), platform.release().split("-")[0]]
        lines = [self.COLUMNS, ["---"] * len(self.COLUMNS),
                 *(self.rows[key] for key in sorted(self.rows))]
        text = HEAD + "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
        self.path.write_text(text)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Kill programs that use packages.")
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--venvs", default=str(ROOT / "build" / "packages"))
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--on", action="append", default=[], metavar="VERSION",
                        help="only interpreters whose name starts so, such as 3.12")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--table", default=str(ROOT / "docs" / "compatibility.md"))
    parser.add_argument("--offline", action="store_true", help="install nothing")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.long = False
    return args


def first_lines(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:200]


def main():
    args = parse_arguments()
    directory = pathlib.Path(args.venvs)
    directory.mkdir(parents=True, exist_ok=True)
    table = Table(pathlib.Path(args.table))
    subjects = [Subject(path) for path in sorted((HERE / "programs").glob("*.py"))]
    unknown = set(args.only) - {subject.name for subject in subjects}
    if unknown:
        raise SystemExit(f"no such program: {', '.join(sorted(unknown))}")
    session = live.Session(args)
    found = collections.Counter()
    for base in [interpreters.DEBIAN, *interpreters.all_pyenv()]:
        environment = Environment(base, directory, args.offline)
        if args.on and not environment.name.startswith(tuple(args.on)):
            continue
        print(f"{environment.name}, seed {args.seed}", flush=True)
        versions = environment.versions(sorted({m for s in subjects for m in s.modules}))
        interpreter = interpreters.Interpreter(environment.python)
        for subject in subjects:
            if args.only and subject.name not in args.only:
                continue
            missing = [m for m in subject.modules if not versions[m]]
            if missing or environment.short < subject.oldest:
                found["left out"] += 1
                continue
            os.environ.update(subject.environment)
            held, text = session.test(subject, interpreter)
            for name in subject.environment:
                del os.environ[name]
            found["held" if held else "failed"] += 1
            uses = ", ".join(f"{m} {versions[m]}" for m in subject.modules)
            table.add(subject.name, uses or "the standard library", environment.name,
                      text if held else "FAILED: " + first_lines(text))
    print(", ".join(f"{n} {what}" for what, n in found.items()))
    sys.exit(1 if found["failed"] else 0)


if __name__ == "__main__":
    main()
