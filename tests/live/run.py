#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - the live tests: real programs, killed with SIGKILL and recovered until they end

    tests/live/run.py [--bin DIR] [--python PATH]... [--only NAME]... [--kills N] [--seed S]
                      [--seconds T] [--every TIME] [--user NAME] [--pypi DIR] [--pyenv X.Y]
                      [--free-threaded] [--jobs N] [--long] [--keep]

Every program of programs/ and examples/ is run once in plain Python, and then under
pyheap-run in a chain of kills and recoveries (chain.py says what must hold). Programs that
need NumPy are left out on interpreters without it. One line is printed for each program.
Exit status: 0, 1 if anything failed, 77 if there was nothing to test, with the reason.
"""
import argparse
import os
import pathlib
import pwd
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
import traceback

import interpreters
import jobs
import processes
import stage
from chain import Chain, ChainError, run_plain
from commands import Commands

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ATTEMPTS = 6


class Program:
    """A program to test, and what its docstring says about it: a line such as
    `live: rounds=100 exit=3 needs=numpy`."""

    def __init__(self, path, name=None, **about):
        self.path = str(path)
        self.name = name or path.stem
        if not about:
            match = re.search(r"^live:(.*)$", path.read_text(), re.MULTILINE)
            if not match:
                raise SystemExit(f"{path} has no line `live: ...` in its docstring")
            about = dict(word.split("=") for word in match[1].split())
        self.rounds = int(about.pop("rounds"))     # takes a few tenths of a second
        self.epochs = int(about.pop("epochs", 1))  # epochs in a round
        self.exit = int(about.pop("exit", 0))
        self.needs = about.pop("needs", None)
        self.stdin = about.pop("stdin", None)      # "lines": numbered lines; else nothing
        self.options = about.pop("options", "").split(",") if "options" in about else []
        self.format = about.pop("arguments", "{rounds}").replace(",", " ")
        if about:
            raise SystemExit(f"{path}: unknown words {about}")

    def arguments(self, rounds):
        return self.format.format(rounds=rounds).split()


def programs(only):
    found = [Program(path) for path in sorted((HERE / "programs").glob("*.py"))
             if path.stem not in ("plain", "parts")]
    found[:0] = [Program(ROOT / "examples" / "heat.py", rounds=200, needs="numpy",
                         arguments="200*200*{rounds} --out grid.npy"),
                 Program(ROOT / "examples" / "sweep.py", rounds=60)]
    unknown = set(only) - {program.name for program in found}
    if unknown:
        raise SystemExit(f"no such program: {', '.join(sorted(unknown))}")
    return [program for program in found if not only or program.name in only]


def long_program():
    return Program(ROOT / "examples" / "heat.py", name="heat-long", rounds=2000, needs="numpy",
                   arguments="500*500*{rounds} --epoch-every 1 --out grid.npy")


class Session:
    """All programs on all interpreters."""

    def __init__(self, args):
        self.args = args
        self.commands = Commands(args.bin)
        self.failures = 0
        self.tested = 0

    def test(self, program, interpreter):
        """One program on one interpreter, one line. @return (whether it held, how it went)."""
        if program.needs == "numpy" and not interpreter.numpy:
            return None
        self.tested += 1
        processes.adopt_orphans()
        seed = f"{self.args.seed}/{program.name}/{interpreter.version}"
        directory = pathlib.Path(tempfile.mkdtemp(prefix=f"live-{program.name}-"))
        if program.stdin:
            program.stdin = directory / "stdin"
            program.stdin.write_text("".join(f"line {i}\n" for i in range(100_000)))
        started = time.monotonic()
        chain = None
        try:
            rounds, reference = self.reference(program, interpreter, directory)
            for attempt in range(ATTEMPTS):
                chain = Chain(self.commands, program, interpreter.path, rounds, self.args.kills,
                              directory / f"heap-{attempt}", random.Random(f"{seed}/{attempt}"),
                              ["--every", self.args.every] if self.args.every else [])
                outcome = chain.run()
                if outcome:
                    break
                rounds *= 2
                reference = run_plain(program, interpreter.path, rounds,
                                      directory / f"plain-{attempt}")
            else:
                raise ChainError(f"C4: ended {ATTEMPTS} times before {self.args.kills} kills")
            differences = reference.differences(outcome)
            if differences:
                raise ChainError("\n".join(differences))
        except Exception as error:  # whatever it is, say it and go on with the next program
            self.failures += 1
            print(f"FAIL  {program.name}\n{error}")
            if not isinstance(error, (ChainError, TimeoutError)):
                traceback.print_exc(file=sys.stdout)
            if chain:
                print("\n".join(chain.log))
                print("stderr of the chain, its end:", chain.read_stderr()[-4000:], sep="\n")
            print(f"kept in {directory}; again with: {self.again(program, interpreter)}",
                  flush=True)
            return False, str(error)
        finally:
            processes.end_children()
        text = (f"{chain.kills} kills and recoveries ({chain.with_keeper} with the keeper, "
                f"{chain.at_once} at once after a recovery)")
        print(f"ok    {program.name:<14} {text}, {rounds} rounds, "
              f"{time.monotonic() - started:.1f} s", flush=True)
        if not self.args.keep:
            shutil.rmtree(directory)
        return True, text

    def reference(self, program, interpreter, directory):
        """Rounds that take about as long as wanted, and the unbroken run of them."""
        if self.args.long:
            return program.rounds, run_plain(program, interpreter.path, program.rounds,
                                             directory / "plain")
        trial = run_plain(program, interpreter.path, program.rounds, directory / "trial")
        rounds = max(30, int(program.rounds * self.args.seconds / trial.seconds))
        if 0.6 * program.rounds < rounds < 1.6 * program.rounds:
            return program.rounds, trial
        return rounds, run_plain(program, interpreter.path, rounds, directory / "plain")

    def again(self, program, interpreter):
        every = ["--every", self.args.every] if self.args.every else []
        which = ["--long"] if self.args.long else ["--only", program.name]
        return shlex.join(["tests/live/run.py", "--bin", self.args.bin,
                           "--python", interpreter.path, "--seed", self.args.seed,
                           "--kills", str(self.args.kills), *every, *which])


def parse_arguments():
    parser = argparse.ArgumentParser(description="Kill programs and recover them.")
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--python", action="append", default=[], help="interpreters to test on")
    parser.add_argument("--pypi", metavar="DIR",
                        help="test on a virtual environment under DIR with NumPy from PyPI")
    parser.add_argument("--pyenv", metavar="X.Y", help="test on pyenv's newest Python X.Y")
    parser.add_argument("--free-threaded", action="store_true",
                        help="test on a Python without the interpreter lock")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--seconds", type=float, default=2.5,
                        help="how long a program runs when it is not killed")
    parser.add_argument("--every", metavar="TIME", help="take epochs by the clock as well")
    parser.add_argument("--user", help="test as this user (when root)")
    parser.add_argument("--long", action="store_true",
                        help="heat.py 500*500*2000, an epoch each iteration, 200 kills")
    parser.add_argument("--jobs", type=int, default=1, help="chains at a time")
    parser.add_argument("--keep", action="store_true", help="keep the directories of all runs")
    args = parser.parse_args()
    if args.kills is None:
        args.kills = 200 if args.long else 6
    return args


def chosen_interpreters(args):
    """@return the paths to test on; none with a line that says why."""
    if args.pypi:
        path, why = interpreters.pypi(args.pypi)
        if not path:
            print(f"skipped: no NumPy from PyPI: {why}")
        return [path] if path else []
    if args.pyenv:
        path = interpreters.pyenv(args.pyenv)
        if not path:
            print(f"skipped: no Python {args.pyenv} from pyenv here")
        return [path] if path else []
    if args.free_threaded:
        path = interpreters.free_threaded()
        if not path:
            print(f"skipped: {interpreters.NO_FREE_THREADED}")
        return [path] if path else []
    return args.python or ([interpreters.DEBIAN] if args.long else [interpreters.DEBIAN, *interpreters.all_pyenv()])


def main():
    args = parse_arguments()
    if args.user:
        rest = ["--seed", args.seed, "--kills", str(args.kills), "--seconds", str(args.seconds),
                "--jobs", str(args.jobs)]
        rest += ["--every", args.every] if args.every else []
        for flag, values in (("--python", args.python or [interpreters.DEBIAN]),
                             ("--only", args.only)):
            for value in values:
                rest += [flag, value]
        stage.as_user(args.user, args.bin, __file__, rest)
    todo = [long_program()] if args.long else programs(args.only)
    tasks = []
    for path in chosen_interpreters(args):
        interpreter = interpreters.Interpreter(path)
        print(f"{interpreter}, as {pwd.getpwuid(os.geteuid()).pw_name}, seed {args.seed}",
              flush=True)
        tasks += [(program, interpreter) for program in todo
                  if program.needs != "numpy" or interpreter.numpy]
    if not tasks:
        print("skipped: nothing to test")
        sys.exit(stage.SKIPPED)

    def work(some):
        session = Session(args)
        for program, interpreter in some:
            session.test(program, interpreter)
        print(f"{session.tested} chains, {session.failures} failed", flush=True)
        return session.failures == 0
    sys.exit(0 if jobs.run(args.jobs, tasks, work) else 1)


if __name__ == "__main__":
    main()
