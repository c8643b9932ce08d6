#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""errors.py - the tests of the commands and the module: case_*

    tests/live/errors.py [--bin DIR] [--python PATH | --pyenv X.Y] [--user NAME] [--jobs N]
                         [unittest's options and names]

They wait most of the time, so with --jobs several run at a time.
"""
import argparse
import os
import pathlib
import sys
import tempfile
import unittest

import interpreters
import stage
from case import Case, statuses
from case_ahead import *
from case_asked import *
from case_claim import *
from case_confined import *
from case_cuts import *
from case_descriptors import *
from case_files import *
from case_hot import *
from case_keeper import *
from case_mapped import *
from case_module import *
from case_network import *
from case_pool import *
from case_redone import *
from case_release import *
from case_selfcontained import *
from case_starting import *
from case_terminal import *
from commands import Commands

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Taken(unittest.TestSuite):
    """Those of the tests whose numbers this process was the one to read from a pipe."""
    _cleanup = False

    def __init__(self, tests, pipe):
        super().__init__(tests)
        self.pipe = pipe

    def __iter__(self):
        while number := os.read(self.pipe, 2):
            yield self._tests[int.from_bytes(number, "little")]


def each(suite):
    for test in suite:
        yield from each(test) if isinstance(test, unittest.TestSuite) else [test]


class Jobs:
    """A runner of tests in several processes."""

    def __init__(self, count):
        self.count = count

    def run(self, suite):
        tests = list(each(suite))
        read, write = os.pipe()
        outputs = [tempfile.TemporaryFile("w+") for _ in range(self.count)]
        children = []
        for output in outputs:
            children.append(os.fork())
            if children[-1] == 0:
                os.close(write)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                runner = unittest.TextTestRunner(open(2, "w", closefd=False), verbosity=1)
                os._exit(not runner.run(Taken(tests, read)).wasSuccessful())
        os.close(read)
        with open(write, "wb") as file:
            for number in range(len(tests)):
                file.write(number.to_bytes(2, "little"))
        statuses = [os.waitpid(child, 0)[1] for child in children]
        for output in outputs:
            output.seek(0)
            print(output.read(), flush=True)
        self.good = not any(statuses)
        return self

    def wasSuccessful(self):
        return self.good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--pyenv", metavar="X.Y", help="test on pyenv's newest Python X.Y")
    parser.add_argument("--user", help="test as this user (when root)")
    parser.add_argument("--jobs", type=int, default=1)
    args, rest = parser.parse_known_args()
    if args.pyenv:
        args.python = interpreters.pyenv(args.pyenv)
        if not args.python:
            print(f"skipped: no Python {args.pyenv} from pyenv here")
            sys.exit(stage.SKIPPED)
    if args.user:
        stage.as_user(args.user, args.bin, __file__, ["--python", args.python, "--jobs", str(args.jobs), *rest])
    # A pool that root makes in a directory of another user is a case of its own.
    os.umask(0o022)
    Case.commands = Commands(args.bin)
    Case.python = args.python
    Case.STATUS = statuses(ROOT / "allocator" / "error.h")
    unittest.main(argv=["errors.py", *rest], verbosity=1,
                  testRunner=Jobs(args.jobs) if args.jobs > 1 else None)


if __name__ == "__main__":
    main()
