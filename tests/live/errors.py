#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""errors.py - the tests of the commands and the module: case_*

    tests/live/errors.py [--bin DIR] [--python PATH | --pyenv X.Y | --free-threaded] [--user NAME] [--jobs N]
                         [unittest's options and names]

They wait most of the time, so with --jobs several run at a time.
"""
import argparse
import io
import os
import pathlib
import sys
import unittest

import interpreters
import jobs
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
    """Tests that come one by one."""
    _cleanup = False

    def __init__(self, tests):
        super().__init__()
        self.tests = tests

    def __iter__(self):
        return self.tests


def each(suite):
    for test in suite:
        yield from each(test) if isinstance(test, unittest.TestSuite) else [test]


class Runner:
    """Of tests in several processes, what each says together."""

    def __init__(self, count):
        self.count = count

    def run(self, suite):
        def work(tests):
            stream = io.StringIO()
            result = unittest.TextTestRunner(stream, verbosity=1).run(Taken(tests))
            os.write(2, stream.getvalue().encode())
            return result.wasSuccessful()
        self.good = jobs.run(self.count, list(each(suite)), work)
        return self

    def wasSuccessful(self):
        return self.good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--pyenv", metavar="X.Y", help="test on pyenv's newest Python X.Y")
    parser.add_argument("--free-threaded", action="store_true",
                        help="test on a Python without the interpreter lock")
    parser.add_argument("--user", help="test as this user (when root)")
    parser.add_argument("--jobs", type=int, default=1)
    args, rest = parser.parse_known_args()
    if args.pyenv:
        args.python = interpreters.pyenv(args.pyenv)
        if not args.python:
            print(f"skipped: no Python {args.pyenv} from pyenv here")
            sys.exit(stage.SKIPPED)
    if args.free_threaded:
        args.python = interpreters.free_threaded()
        if not args.python:
            print(f"skipped: {interpreters.NO_FREE_THREADED}")
            sys.exit(stage.SKIPPED)
    if args.user:
        stage.as_user(args.user, args.bin, __file__, ["--python", args.python, "--jobs", str(args.jobs), *rest])
    # A pool that root makes in a directory of another user is a case of its own.
    os.umask(0o022)
    Case.commands = Commands(args.bin)
    Case.python = args.python
    Case.STATUS = statuses(ROOT / "allocator" / "error.h")
    unittest.main(argv=["errors.py", *rest], verbosity=1,
                  testRunner=Runner(args.jobs) if args.jobs > 1 else None)


if __name__ == "__main__":
    main()
