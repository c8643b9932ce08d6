#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - real packages from PyPI, and every state a program is in: killed and recovered

    tests/packages/run.py [--bin DIR] [--venvs DIR] [--only NAME]... [--on NAME]... [--kills N]
                          [--seconds T] [--seed S] [--every TIME] [--table FILE]
                          [--standard] [--offline] [--jobs N] [--keep]

For each interpreter found a virtual environment with what PyPI has for it, then each program of
programs/ in a chain of kills and recoveries, exactly as tests/live does it. Every run adds its
lines to the table of what was tried and what happened. Exit status 1 if anything failed.
"""
import argparse
import collections
import datetime
import fcntl
import os
import pathlib
import platform
import random
import shlex
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))

import interpreters  # noqa: E402
import jobs  # noqa: E402
import run as live  # noqa: E402

# What a module is called on PyPI, where that is not its own name, and versions that matter.
REQUIREMENT = {"PIL": "pillow", "sklearn": "scikit-learn", "zmq": "pyzmq",
               "cv2": "opencv-python-headless", "faiss": "faiss-cpu",
               "tensorflow": "tensorflow-cpu", "z3": "z3-solver", "flint": "python-flint",
               "skimage": "scikit-image", "pywt": "pywavelets", "mpi4py.MPI": "mpi4py",
               "torch": "torch==2.13.0+cpu",  # its other builds are of gigabytes
               "xgboost": "xgboost-cpu", "Bio": "biopython", "qiskit_aer": "qiskit-aer",
               "jpype": "jpype1", "grpc": "grpcio"}

# What a module loads, and its package does not ask for.
BESIDES = {"mpi4py.MPI": ["mpich"]}

# In the virtual environment: imports one module and says its version.
LOOK = """
import importlib, importlib.metadata, sys
module, distribution = sys.argv[1:]
importlib.import_module(module)
print(importlib.metadata.version(distribution))
"""

HEAD = """# What was tried

Written by `scripts/test-packages`: each program of [tests/packages](../tests/packages/README.md) is started under `pyheap-run`, killed with SIGKILL and recovered again and again until it ends, and must leave behind what it leaves in plain Python. A line says what the last such run found.

"""


def why(done):
    """Why a command failed, in a line."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"exit status {done.returncode}"])[-1]


class Environment:
    """A virtual environment on one interpreter, with the packages that there are for it."""

    def __init__(self, base, directory):
        version = subprocess.run([base, "-c", "import platform; print(platform.python_version())"],
                                 capture_output=True, text=True, check=True).stdout.strip()
        self.base = base
        self.name = version + (" of Debian" if base == interpreters.DEBIAN else "")
        self.short = tuple(map(int, version.split(".")[:2]))
        self.path = directory / ("venv-" + self.name.replace(" ", "-"))
        self.python = str(self.path / "bin" / "python")
        self.failed = {}    # {requirement: why it could not be installed}
        self.versions = {}  # {module: (version or None, why it cannot be imported)}

    def make(self, modules, offline):
        """Made, with what can be had of the modules."""
        if not os.path.exists(self.python):
            subprocess.run([self.base, "-m", "venv", *(["--without-pip"] if offline else []),
                            self.path], check=True)
        if not offline:
            self.install(sorted({r for m in modules
                                 for r in (REQUIREMENT.get(m, m), *BESIDES.get(m, []))}))
        # In plain Python `import pyheap` is the stand-in; under pyheap-run the built-in is first.
        site, = self.path.glob("lib/python3*/site-packages")
        (site / "pyheap-stand-in.pth").write_text(str(ROOT / "pyhook" / "python") + "\n")

    def install(self, wanted):
        """All together, so that they agree; else one by one, and those that fail by name."""
        if not wanted or self.pip(wanted).returncode == 0:
            return
        for requirement in wanted:
            done = self.pip([requirement])
            if done.returncode != 0:
                self.failed[requirement] = why(done)
                print(f"{requirement} is not installed: {why(done)}", flush=True)

    def pip(self, wanted):
        # What a package asks for is not to be another version than what we ask for ourselves.
        pinned = self.path / "pinned.txt"
        pinned.write_text("".join(f"{r}\n" for r in REQUIREMENT.values() if "==" in r))
        return subprocess.run([self.python, "-m", "pip", "install", "--quiet", "--only-binary",
                               ":all:", "--disable-pip-version-check", "--constraint", pinned,
                               *wanted], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True)

    def version(self, module):
        """
        In a process of its own, since an import may end it.
        @return (version, None), or (None, why there is none).
        """
        if module not in self.versions:
            requirement = REQUIREMENT.get(module, module)
            done = subprocess.run([self.python, "-c", LOOK, module, requirement.split("==")[0]],
                                  capture_output=True, text=True)
            if done.returncode == 0:
                found = done.stdout.split()[-1], None
            elif requirement in self.failed:
                found = None, f"{module} cannot be installed: {self.failed[requirement]}"
            else:
                found = None, f"{module} cannot be imported: {why(done)}"
            self.versions[module] = found
        return self.versions[module]


class Bare(Environment):
    """Debian's interpreter itself, for what PyPI has no binaries of and Debian has."""

    def __init__(self):
        super().__init__(interpreters.DEBIAN, pathlib.Path())
        self.python = interpreters.DEBIAN


class Subject(live.Program):
    """A program, with words that only these have: `python=3.12` (at least), `environment=`,
    `debian=` (the package that has what it needs, on Debian's Python alone)."""

    def __init__(self, path):
        about = dict(word.split("=", 1) for line in path.read_text().splitlines()
                     if line.startswith("live:") for word in line[5:].split())
        self.oldest = tuple(map(int, about.pop("python", "3.9").split(".")))
        self.environment = dict([about.pop("environment").split("=")]
                                if "environment" in about else [])
        self.debian = about.pop("debian", None)
        if self.debian:
            self.environment["PYTHONPATH"] = str(ROOT / "pyhook" / "python")
        needs = about.pop("needs", "")
        super().__init__(path, **about)
        self.modules = needs.split(",") if needs else []


class Session(live.Session):
    """Of these programs."""

    def again(self, program, interpreter):
        every = ["--every", self.args.every] if self.args.every else []
        return shlex.join(["tests/packages/run.py", "--bin", self.args.bin, "--venvs",
                           self.args.venvs, "--offline", "--only", program.name, "--on",
                           interpreter.name, "--seed", self.args.seed, "--kills",
                           str(self.args.kills), *every])


class Table:
    """
    docs/compatibility.md: one line for each program and interpreter, the newest of each. It is
    read again for each line, so that several runs can write it at once.
    """

    COLUMNS = ["program", "what it uses", "Python", "what happened", "day", "kernel"]

    def __init__(self, path, programs):
        self.path = path
        self.programs = programs

    def rows(self, file):
        found = {}
        for line in file:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("| ") and len(cells) == len(self.COLUMNS) \
                    and cells[0] in self.programs:
                found[cells[0], cells[2]] = cells
        return found

    def add(self, program, uses, python, happened):
        with open(self.path, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            rows = self.rows(file)
            rows[program, python] = [program, uses, python, happened.replace("|", "/"),
                                     str(datetime.date.today()),
                                     platform.release().split("-")[0]]
            file.truncate(0)
            file.write(HEAD + "".join("| " + " | ".join(cells) + " |\n" for cells in
                                      [self.COLUMNS, ["---"] * len(self.COLUMNS),
                                       *(rows[key] for key in sorted(rows))]))


def parse_arguments():
    parser = argparse.ArgumentParser(description="Kill programs that use packages.")
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--venvs", default=str(ROOT / "build" / "packages"))
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--on", action="append", default=[], metavar="VERSION",
                        help="only interpreters whose name starts or ends so: 3.12, Debian")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--table", default=str(ROOT / "docs" / "compatibility.md"))
    parser.add_argument("--every", metavar="TIME", help="take epochs by the clock as well")
    parser.add_argument("--standard", action="store_true",
                        help="only programs of the standard library; nothing is installed")
    parser.add_argument("--offline", action="store_true", help="install nothing")
    parser.add_argument("--jobs", type=int, default=1, help="chains at a time")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.long = False
    args.offline |= args.standard
    return args


def first_lines(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:200]


def chosen(args):
    """(the programs to run, the names of all, the environments to run them in)"""
    subjects = {path.stem: Subject(path) for path in sorted((HERE / "programs").glob("*.py"))}
    unknown = set(args.only) - set(subjects)
    if unknown:
        raise SystemExit(f"no such program: {', '.join(sorted(unknown))}")
    environments = [Environment(base, pathlib.Path(args.venvs))
                    for base in [interpreters.DEBIAN, *interpreters.all_pyenv()]]
    environments = [e for e in environments if not args.on or
                    any(e.name.startswith(on) or e.name.endswith(on) for on in args.on)]
    if not environments:
        raise SystemExit(f"no such interpreter: {', '.join(args.on)}")
    found = [subjects[name] for name in args.only or subjects]
    return ([s for s in found if not (args.standard and s.modules)], set(subjects),
            environments)


def main():
    args = parse_arguments()
    pathlib.Path(args.venvs).mkdir(parents=True, exist_ok=True)
    subjects, names, environments = chosen(args)
    table = Table(pathlib.Path(args.table), names)
    good = True
    for environment in environments:
        print(f"{environment.name}, seed {args.seed}", flush=True)
        todo = [s for s in subjects if environment.short >= s.oldest
                and (environment.base == interpreters.DEBIAN or not s.debian)]
        environment.make({m for s in todo if not s.debian for m in s.modules}, args.offline)

        def work(some):
            found = collections.Counter(
                test(Session(args), subject, Bare() if subject.debian else environment, table)
                for subject in some)
            print(", ".join(f"{n} {what}" for what, n in found.items()), flush=True)
            return not found["failed"]
        good &= jobs.run(args.jobs, todo, work)
    sys.exit(0 if good else 1)


def test(session, subject, environment, table):
    """One program. @return what to count it as."""
    before = os.environ.copy()
    os.environ.update(subject.environment)
    try:
        return tried(session, subject, environment, table)
    finally:
        for name in subject.environment:
            del os.environ[name]
        os.environ.update(before)


def tried(session, subject, environment, table):
    """The same, with the program's environment."""
    interpreter = interpreters.Interpreter(environment.python)
    interpreter.name = environment.name
    versions = {m: environment.version(m) for m in subject.modules}
    reasons = [reason for _, reason in versions.values() if reason]
    if reasons:
        print(f"out   {subject.name:<14} {reasons[0]}", flush=True)
        table.add(subject.name, ", ".join(versions), environment.name,
                  "left out: " + first_lines(reasons[0]))
        return "left out"
    held, text = session.test(subject, interpreter)
    uses = ", ".join(f"{m} {version}" for m, (version, _) in versions.items())
    table.add(subject.name, uses or "the standard library", environment.name,
              text if held else "FAILED: " + first_lines(text))
    return "held" if held else "failed"


if __name__ == "__main__":
    main()
