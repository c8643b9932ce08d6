#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - whole test suites, CPython's and NumPy's, with epochs all the time and without pyheap

    tests/suites/run.py [--bin DIR] [--suite cpython|numpy]... [--on VERSION]... [--only FILE]...
                        [--every TIME] [--jobs N] [--minutes M] [--patience SECONDS]
                        [--again] [--work DIR]

Each file of a suite runs under `pyheap-run --every TIME`; one with a test that fails runs in the
plain interpreter, too. A file that differs is run up to three times in both, because suites of
this size have tests that fail now and then; what has failed under pyheap-run and never in plain
Python is a difference. What has been run is kept in DIR, so that a run can be ended at any time
and gone on with, and several can share it; the lines in docs/suites.md are written from that, the
others there stay; --only writes none. Exit status 1 if anything differs.
"""
import argparse
import concurrent.futures
import datetime
import fcntl
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "live"), str(ROOT / "tests" / "hook")]

import interpreters  # noqa: E402
from suite import DIFFERENT, outcomes  # noqa: E402

ROUNDS = 3
LONG, LONGEST = 60, 10  # files that take so many seconds are named, so many of them
NOTHING = "no test of it runs on this machine"

# {suite: {file: why it is left out}}
EXCLUDED = {"cpython": {}, "numpy": {}}
# Single tests of CPython: on a machine whose hypervisor is asked by vsock this one never ends, in
# plain Python either.
IGNORED = ["test.test_socket.ThreadedVSOCKSocketStreamTest.*"]

# {test that differs: the cause, where it will stay}
CAUSES = {
    "test.test__xxsubinterpreters.IsRunningTests.test_main":
        "up to 3.10 this private function refuses an interpreter with several threads, and the "
        "thread that takes epochs by the clock is one; it does so beside any `threading.Thread`"}

# What epochs are most likely to be noticed by is run first: a run that is ended has tried it.
FIRST = re.compile(
    r"test_(_?thread|dummy_thread|signal|faulthandler|asyn|socket|ssl|ftplib|select|e?poll|subproc"
    r"|popen|fork|wait|multiproc|concurrent|_?io|file|bufio|large|mmap|os|posix|pty|open|temp|gc$"
    r"|finaliz|weakref|gener|corout|context|time|sched|queue|sqlite|capi|ctypes|sys|tracemalloc"
    r"|exceptions|fcntl|ioctl|resource|lock|logging|sundry|atexit|interp|monitoring|eintr|embed"
    r"|pdb|bdb|httpservers|zlib|bz2|lzma)")

# Runs a module as `python -m` does and notes in the end how many epochs there were.
PROGRAM = """
import atexit, os, runpy, sys
file, module = sys.argv.pop(1), sys.argv.pop(1)
if file != "-":
    import pyheap
    def note(parent=os.getpid()):
        if os.getpid() == parent:
            with open(file, "w") as out:
                out.write(str(pyheap.status()["epoch"]))
    atexit.register(note)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

HEAD = """# Whole test suites with epochs all the time

Written by `scripts/test-suites`: each file of the suite runs under `pyheap-run --every TIME`, and in the plain interpreter if a test of it fails. A file that differs is run three times in both. A *difference* is a test that failed under `pyheap-run` and never in plain Python on the same machine.

"""


class Cpython:
    """The interpreter's own tests, those that need no network and no other resources."""
    name = "cpython"

    def __init__(self, python):
        self.python = python

    def files(self):
        done = subprocess.run([self.python, "-m", "test", "--list-tests"], capture_output=True,
                              text=True)
        return done.stdout.split() if done.returncode == 0 else []

    @staticmethod
    def words(file, xml):
        ignored = [word for pattern in IGNORED for word in ("--ignore", pattern)]
        return ["test", f"--junit-xml={xml}", *ignored, file]


class Numpy:
    """NumPy's tests, run by pytest, in a virtual environment with both."""
    name = "numpy"

    def __init__(self, python):
        self.python = python

    def files(self):
        code = ("import numpy, pathlib, pytest, hypothesis\n"
                "root = pathlib.Path(numpy.__file__).parent\n"
                "print(*sorted(str(p.relative_to(root)) for p in root.rglob('tests/test_*.py')))")
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True)
        return done.stdout.split() if done.returncode == 0 else []

    @staticmethod
    def words(file, xml):
        module = "numpy." + file.removesuffix(".py").replace("/", ".")
        return ["pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}", "--pyargs", module]


SUITES = {suite.name: suite for suite in (Cpython, Numpy)}
running = set()  # the process groups of tests


def end_tests(number, _frame):
    """Told to end: so are the tests, which lead sessions of their own."""
    for group in list(running):
        os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


def run_once(suite, file, keeper, patience):
    """
    @return ({test: outcome}, epochs), or (why there is none, epochs). A status that says failure
    when no test has failed is one, too: doctests alone in a file, an end after the last test.
    """
    with tempfile.TemporaryDirectory(prefix="pyheap-suites-") as directory:
        xml, count = os.path.join(directory, "out.xml"), os.path.join(directory, "epochs")
        program = os.path.join(directory, "suites_program.py")
        pathlib.Path(program).write_text(PROGRAM)
        command = [*keeper, "--pool", os.path.join(directory, "suite.pm"), "--python",
                   suite.python] if keeper else [suite.python]
        command += [program, count if keeper else "-", *suite.words(file, xml)]
        with open(os.path.join(directory, "output"), "w+b") as output:
            child = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=output, start_new_session=True)
            running.add(child.pid)
            late = False
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                late = True
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            running.discard(child.pid)
            output.seek(0)
            text = output.read().decode(errors="replace")
        epochs = int(pathlib.Path(count).read_text()) if os.path.exists(count) else 0
        if late:
            return f"not done after {patience:.0f} s", epochs
        try:
            tests = outcomes(xml)
            if child.returncode != 0 and "failed" not in tests.values():
                tests["(the end)"] = "failed"
            return tests, epochs
        except (OSError, SyntaxError):
            last = text.strip().splitlines()[-1:] or ["no output"]
            if last[0] in ("Result: SUCCESS", "Result: NO TESTS RAN"):
                return NOTHING, epochs
            return f"no results, status {child.returncode}: {last[0][:160]}", epochs


def merge(runs):
    """Of several runs: {test: how often it failed}, the tests seen; reasons count as a test."""
    failed, seen = {}, set()
    for run in runs:
        tests = {"(the file)": "failed"} if isinstance(run, str) else run
        for name, outcome in tests.items():
            seen.add(name)
            failed[name] = failed.get(name, 0) + (outcome == "failed")
    return failed, seen


def test_file(suite, file, keeper, patience):
    """@return what is kept about a file"""
    plain, ours, epochs, took, different = [], [], 0, 0, {}
    for _ in range(ROUNDS):
        began = time.monotonic()
        tests, taken = run_once(suite, file, keeper, patience)
        took = took or time.monotonic() - began
        ours.append(tests)
        epochs += taken
        bad_ours, seen = merge(ours)
        if not any(bad_ours.values()):
            break
        plain.append(run_once(suite, file, None, patience)[0])
        if isinstance(plain[-1], str):
            break
        bad_plain, _ = merge(plain)
        different = {name: f"{bad} of {len(ours)}" for name, bad in bad_ours.items()
                     if bad and not bad_plain.get(name)
                     and name.rpartition(".")[2] not in DIFFERENT}
        if not different:
            break
    why = plain[-1] if plain and isinstance(plain[-1], str) else None
    if why:
        seen, different = [], {}
    reasons = [run for run in ours if isinstance(run, str)]
    return {"tests": len(seen), "epochs": epochs, "seconds": round(took), "different": different,
            "not_compared": why, "reason": reasons[0] if reasons and not why else None}


class Results:
    """What has been run of one suite on one interpreter; several runs can add to it at once."""

    def __init__(self, directory, about):
        self.path = directory / f"{about['suite']}-{about['python']}-{about['every']}.json"
        self.about = about
        self.files = {}
        self.add({})

    def add(self, files):
        with open(self.path, "a+") as kept:
            fcntl.flock(kept, fcntl.LOCK_EX)
            kept.seek(0)
            self.files = {**json.loads(kept.read() or '{"files": {}}')["files"], **files}
            text = json.dumps({"about": self.about, "files": self.files}, indent=1)
            kept.truncate(0)
            kept.write(text)


def kept_table(table):
    """What the table says: (cells, notes), both by suite, version and time between epochs."""
    text = table.read_text() if table.exists() else ""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
            if line.startswith("| ")][2:]
    parts = re.split(r"^## (\S+) on (\S+), every (\S+)\n\n", text, flags=re.MULTILINE)
    return ({tuple(row[:3]): row for row in rows},
            {tuple(parts[i:i + 3]): parts[i + 3].strip() for i in range(1, len(parts), 4)})


def names(files):
    return ", ".join(f"`{name}`" for name in sorted(files))


def notes_on(suite, all_files, files):
    lines = [f"- different: `{name}`"
             + (f" {test}" if test != name else "") + f", {how} runs"
             + (f" ({f['reason']})" if f["reason"] else "")
             + (f": {CAUSES[test]}" if test in CAUSES else "")
             for name, f in sorted(files.items()) for test, how in f["different"].items()]
    lines += [f"- gives no result in plain Python: `{name}` ({f['not_compared']})"
              for name, f in sorted(files.items()) if f["not_compared"] not in (None, NOTHING)]
    idle = [name for name, f in files.items() if f["not_compared"] == NOTHING]
    if idle:
        lines.append(f"- {NOTHING}, in plain Python either: {names(idle)}")
    silent = [name for name, f in files.items() if not f["tests"] and not f["not_compared"]]
    if silent:
        lines.append(f"- tells of no single tests, only whether it fails (doctests alone, or nothing that runs on this machine): {names(silent)}")
    missing = set(all_files) - set(files)
    if missing:
        lines.append(f"- not run: {names(missing)}")
    long = sorted(((f.get("seconds", 0), name) for name, f in files.items()), reverse=True)
    long = [f"`{name}` ({took} s)" for took, name in long[:LONGEST] if took >= LONG]
    if long:
        lines.append(f"- takes long: {', '.join(long)}")
    lines += [f"- left out: `{name}` ({why})" for name, why in EXCLUDED[suite].items()]
    return "\n".join(lines)


def write_table(work, table):
    rows, notes = kept_table(table)
    for path in sorted(work.glob("*.json")):
        kept = json.loads(path.read_text())
        about, files = kept["about"], kept["files"]
        compared = [f for f in files.values() if not f["not_compared"]]
        different = sum(len(f["different"]) for f in compared)
        key = about["suite"], about["python"], about["every"]
        rows[key] = [*key, f"{len(compared)} of {len(about['files'])}",
                     sum(f["tests"] for f in compared), sum(f["epochs"] for f in compared),
                     different, about["day"], about["kernel"]]
        notes[key] = notes_on(about["suite"], about["files"], files)
    columns = ["suite", "Python", "an epoch every", "files compared", "tests", "epochs",
               "differences", "day", "kernel"]
    lines = [columns, ["---"] * len(columns), *(rows[key] for key in sorted(rows))]
    table.write_text(HEAD + "".join("| " + " | ".join(map(str, cells)) + " |\n" for cells in lines)
                     + "".join(f"\n## {suite} on {python}, every {every}\n\n{text}\n"
                               for (suite, python, every), text in sorted(notes.items()) if text))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--suite", action="append", choices=sorted(SUITES))
    parser.add_argument("--on", action="append", default=[], metavar="VERSION",
                        help="only interpreters whose version starts so, such as 3.12")
    parser.add_argument("--only", action="append", default=[], metavar="FILE")
    parser.add_argument("--every", default="1s", metavar="TIME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, help="begin no further file after so long")
    parser.add_argument("--patience", type=float, default=600, metavar="SECONDS",
                        help="that a file may take")
    parser.add_argument("--again", action="store_true", help="also what has been run before")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "suites")
    parser.add_argument("--table", type=pathlib.Path, default=ROOT / "docs" / "suites.md")
    return parser.parse_args()


def venv_with_numpy(base, version, work):
    """An interpreter with NumPy, pytest and hypothesis; None if PyPI has none for it."""
    path = work / f"venv-{version}"
    python = str(path / "bin" / "python")
    if not (path / "complete").exists():
        subprocess.run([base, "-m", "venv", "--clear", path], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--only-binary", ":all:", "numpy", "pytest", "hypothesis", "setuptools"]
        if subprocess.run(pip).returncode != 0:
            return None
        (path / "complete").touch()
    return python


def run_suite(args, name, base, deadline):
    """@return how many tests differ"""
    version = subprocess.run([base, "-c", "import platform; print(platform.python_version())"],
                             capture_output=True, text=True, check=True).stdout.strip()
    if args.on and not version.startswith(tuple(args.on)):
        return 0
    python = base if name == "cpython" else venv_with_numpy(base, version, args.work)
    suite = SUITES[name](python) if python else None
    files = [f for f in suite.files() if f not in EXCLUDED[name]] if suite else []
    if not files:
        print(f"{name} on {base}: the test suite is not installed")
        return 0
    about = {"suite": name, "python": version, "every": args.every, "files": files,
             "day": str(datetime.date.today()), "kernel": platform.release().split("-")[0]}
    results = Results(args.work, about)
    keeper = [os.path.join(os.path.abspath(args.bin), "pyheap-run"), "--every", args.every]
    todo = [f for f in sorted(files, key=lambda f: not FIRST.search(f))
            if (not args.only or f in args.only)
            and (args.again or args.only or f not in results.files)]
    print(f"{name} on {version}: {len(todo)} of {len(files)} files", flush=True)

    def one(file):
        if deadline and time.monotonic() > deadline:
            return None
        return test_file(suite, file, keeper, args.patience)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(one, file): file for file in todo}
        for future in concurrent.futures.as_completed(futures):
            file, result = futures[future], future.result()
            if not result:
                continue
            results.add({file: result})
            for test, how in result["different"].items():
                print(f"  {file}: {test} fails under pyheap-run, {how}", result["reason"] or "",
                      flush=True)
    return sum(len(f["different"]) for f in results.files.values())


def main():
    args = parse_arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, end_tests)
    deadline = time.monotonic() + args.minutes * 60 if args.minutes else None
    different = 0
    for base in [interpreters.DEBIAN, *interpreters.all_pyenv()]:
        for name in args.suite or sorted(SUITES):
            different += run_suite(args, name, base, deadline)
    if not args.only:
        write_table(args.work, args.table)
    print(f"{different} different")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
