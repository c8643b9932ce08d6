#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""suite.py - CPython's own tests, under pyheap-run and without it

    tests/hook/suite.py --bin DIR (--python PATH | --pyenv X.Y) [--long] [TEST]...

Runs parts of the interpreter's test suite twice and compares the outcome of every single test.
What also fails in plain Python on
this machine is no finding; what fails under pyheap-run only is one. Exit status 1 if there is
any, 77 if the interpreter or its test suite is not installed.
"""
import argparse
import glob
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

SHORT = ["test_list", "test_dict", "test_set", "test_bytes", "test_array", "test_memoryview",
         "test_gc", "test_weakref", "test_generators", "test_exceptions", "test_sys"]
LONG = SHORT + ["test_capi", "test_threading", "test_unicode", "test_coroutines", "test_ctypes",
                "test_tracemalloc", "test_subprocess", "test_os", "test_posix", "test_signal",
                "test_mmap", "test_decimal", "test_queue", "test_select", "test_io"]
SKIPPED = 77

# Known and documented: it counts the blocks of the allocator that pyheap replaces.
DIFFERENT = {"test_getallocatedblocks"}

# The suite; in the end an epoch and a look at the hook.
PROGRAM = """
import runpy, sys
if sys.argv.pop(1) == "pyheap":
    import atexit, os, pyheap
    def look(parent=os.getpid()):
        if os.getpid() == parent:
            assert pyheap.epoch(wait=True) > 0
            assert pyheap._hook() == {"in_force": True, "foreign": 0}
            print("the hook held", file=sys.__stdout__)
    atexit.register(look)
runpy.run_module("test", run_name="__main__", alter_sys=True)
"""


def outcomes(file):
    """{name of test: "passed", "skipped" or "failed"}"""
    found = {}
    for case in ElementTree.parse(file).iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None or case.get("result") == "skipped"
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        found[name] = "failed" if bad else "skipped" if skipped else "passed"
    return found


def run(command, mode, tests, directory):
    file = os.path.join(directory, f"{mode}.xml")
    program = os.path.join(directory, "suite_program.py")
    pathlib.Path(program).write_text(PROGRAM)
    done = subprocess.run([*command, program, mode, f"--junit-xml={file}", *tests],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, cwd=directory, encoding="utf-8",
                          errors="replace")
    if not os.path.exists(file):
        sys.exit(f"{mode}: no results, status {done.returncode}\n{done.stdout[-3000:]}")
    if mode == "pyheap" and "the hook held" not in done.stdout.splitlines():
        sys.exit(f"the hook did not hold\n{done.stdout[-3000:]}")
    return outcomes(file), done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, help="directory of pyheap's commands")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--python", help="the interpreter to test")
    which.add_argument("--pyenv", help="version of pyenv's interpreter to test, such as 3.12")
    parser.add_argument("--long", action="store_true", help="more tests: some minutes")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="these instead")
    o = parser.parse_args()
    if o.pyenv:
        root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
        pattern = f"{root}/versions/{o.pyenv}.*[0-9]/bin/python{o.pyenv}"
        o.python = min(glob.glob(pattern), default=pattern)
    if not os.access(o.python, os.X_OK):
        print(f"there is no {o.python}")
        sys.exit(SKIPPED)
    if subprocess.run([o.python, "-c", "import test.test_list"], stderr=subprocess.DEVNULL,
                      check=False).returncode != 0:
        print(f"{o.python} has no test suite")
        sys.exit(SKIPPED)
    tests = o.tests or (LONG if o.long else SHORT)
    with tempfile.TemporaryDirectory(prefix="pyheap-suite-") as directory:
        plain, _ = run([o.python], "plain", tests, directory)
        keeper = [os.path.join(os.path.abspath(o.bin), "pyheap-run"), "--pool",
                  os.path.join(directory, "suite.pm"), "--python", o.python]
        ours, output = run(keeper, "pyheap", tests, directory)
    if not o.tests and len(plain) < 1000:
        sys.exit(f"only {len(plain)} tests ran")
    differing = sorted(name for name in plain.keys() | ours.keys()
                       if plain.get(name) != ours.get(name)
                       and name.rpartition(".")[2] not in DIFFERENT)
    for name in differing:
        print(f"{name}: {plain.get(name, 'not run')} without, {ours.get(name, 'not run')} under "
              "pyheap-run")
    if differing:
        print(output[-8000:])
    print(f"{len(ours)} tests, {len(differing)} different")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
