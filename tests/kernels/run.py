#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - the tests on another kernel: in a virtual machine, emulated, which needs no rights

    tests/kernels/run.py [--deb FILE | --package NAME] [--bin DIR] [--work DIR]
                         [--silence MINUTES] [--travel] [-- COMMAND...]

The machine (machine.py) starts a kernel of Debian's. In it TESTS run in the build directory;
then programs travel between it and this machine (travel.py; with --travel only that). Or
COMMAND runs in it. What they print is printed here, and their exit status is ours.

Exit status 77, with the reason, where no such machine can be started.
"""
import argparse
import pathlib
import shlex
import sys

import travel
from machine import PACKAGE, SILENCE, Machine

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What tells the changed pages differs most between kernels.
TESTS = """set -e
uname -sr
ctest --output-on-failure -R unit.test_track
bin/pyheap-run --pool $TMPDIR/tracker.pm --python /usr/bin/python3 -c \\
    'import pyheap; pyheap.epoch(); print("changed pages are found by", pyheap.status()["tracker"])'
/usr/bin/python3 {root}/tests/live/run.py --bin "$PWD/bin" --python /usr/bin/python3 \\
    --kills 3 --seconds 2 \\
    --only heat --only churn --only growth --only threads --only suspended --only sparse_maps \\
    --only private_mmap --only clocks --only timers --only states
/usr/bin/python3 {root}/tests/kernels/overcommit.py "$PWD/bin"
/usr/bin/python3 {root}/tests/kernels/memory.py "$PWD/bin"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", default=PACKAGE)
    parser.add_argument("--deb", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build" / "bin")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "kernels")
    parser.add_argument("--silence", type=float, default=SILENCE / 60,
                        help="minutes without a line after which the machine counts as hung")
    parser.add_argument("--travel", action="store_true")
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    machine = Machine(args.work.resolve(), args.deb, args.package, args.silence * 60)
    programs = args.bin.resolve()
    status = 0
    if not args.travel:
        command = shlex.join(args.command) or TESTS.format(root=shlex.quote(str(ROOT)))
        status = machine.run(command, programs.parent)
    if status == 0 and not args.command:
        status = travel.run(machine, programs)
    return 1 if status is None else status


if __name__ == "__main__":
    sys.exit(main())
