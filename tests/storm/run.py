#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - the storm: random programs, killed at random moments and recovered, again and again

    tests/storm/run.py [--bin DIR] [--python PATH]... [--seed S] [--count N | --seconds T]
                       [--length T] [--kills N] [--mode MODE] [--pool-on DIR]... [--plain N]
                       [--calm] [--user NAME]

Each program (program.py) is run once in plain Python and once in a chain of 5 to 20 kills and
recoveries, which must leave the same behind (../live/chain.py). Interpreter, place of the pool,
the way of taking epochs (`calls`, `clock`, `both`) and what ways.py knows are drawn as well. A
failure keeps its directory and says how to repeat it; --plain N runs the same program N times
without pyheap instead, to see whether the interpreter is at fault.
"""
import argparse
import os
import pathlib
import random
import shlex
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))

import interpreters  # noqa: E402
import processes  # noqa: E402
import stage  # noqa: E402
from chain import ChainError, PythonDied, run_plain  # noqa: E402
from commands import Commands  # noqa: E402
from run import Program  # noqa: E402
from ways import Storm  # noqa: E402

TRIAL = 10  # rounds


def lasting(program, python, seconds, directory):
    """@return (rounds that take about so long in plain Python, what they leave behind)."""
    rounds = TRIAL
    while True:
        reference = run_plain(program, python, rounds, directory / f"plain-{rounds}")
        if reference.seconds > 0.6 * seconds or rounds > 5000:
            return rounds, reference
        rounds = int(rounds * min(max(seconds / reference.seconds, 1.5), 6))


def one(args, commands, seed):
    """
    One program. @return a line of what it was, and what is wrong or None.

    @raise PythonDied: of no use as a reference
    """
    rng = random.Random(seed)
    python = rng.choice(args.python)
    mode = rng.choice(["calls", "clock", "both"])
    place = rng.choice(args.pool_on)
    kills = rng.randint(5, 20)
    mode, kills = args.mode or mode, args.kills or kills
    calls = ["--calls"] if mode != "clock" else []
    program = Program(HERE / "program.py", rounds=TRIAL,
                      arguments=",".join(["{rounds}", seed, *calls]))
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"storm-{seed}-", dir=place))
    os.environ["TMPDIR"] = str(directory / "tmp")
    (directory / "tmp").mkdir()
    about = f"{seed} {python.split('/')[-3]} {mode} {place}"
    chain = None
    try:
        rounds, reference = lasting(program, python, args.length, directory)
        for n in range(args.plain):
            outcome = run_plain(program, python, rounds, directory / f"again-{n}")
            differences = reference.differences(outcome)
            if differences:
                raise ChainError("plain Python itself: " + "\n".join(differences))
        if not args.plain:
            chain = Storm(commands, program, python, rounds, kills, directory / "chain", rng,
                          mode=mode, seconds=reference.seconds)
            if args.calm:
                chain.calm()
            about += f" {chain.about()}"
            outcome = chain.run()
            differences = outcome and reference.differences(outcome)
            if differences:
                raise ChainError("\n".join(differences))
            about += f" {chain.kills} kills, epoch {chain.newest}"
        shutil.rmtree(directory)
        return about, None
    except PythonDied:
        shutil.rmtree(directory)
        raise
    except (ChainError, TimeoutError) as error:
        said = chain.read_stderr()[-6000:] if chain else ""
        log = "\n".join(chain.log[-5:]) if chain else ""
        again = shlex.join(["tests/storm/run.py", "--bin", args.bin, "--python", python,
                            "--mode", mode, "--length", str(args.length), "--pool-on", place,
                            "--count", "1", "--seed", seed])
        return about, f"{error}\n{log}\n{said}\nkept in {directory}; again with: {again}"
    finally:
        processes.end_children()


def main():
    parser = argparse.ArgumentParser(description="Kill and recover random programs.")
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--python", action="append", default=[])
    parser.add_argument("--seed", help="this very program")
    parser.add_argument("--seconds", type=float, default=60, help="no new program after that")
    parser.add_argument("--count", type=int, help="so many programs instead")
    parser.add_argument("--length", type=float, default=4,
                        help="seconds that one takes in plain Python")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--mode", choices=["calls", "clock", "both"])
    parser.add_argument("--pool-on", action="append", default=[], metavar="DIR")
    parser.add_argument("--plain", type=int, default=0, metavar="N")
    parser.add_argument("--calm", action="store_true",
                        help="no odd surroundings, deaths and recoveries (ways.py)")
    parser.add_argument("--user", help="test as this user (when root)")
    args = parser.parse_args()
    if args.user:
        at = sys.argv.index("--user")
        stage.as_user(args.user, args.bin, __file__, sys.argv[1:at] + sys.argv[at + 2:])
    args.python = args.python or [interpreters.DEBIAN, *interpreters.all_pyenv()]
    args.python = [path for path in args.python if os.access(path, os.X_OK)]
    args.pool_on = args.pool_on or ["/tmp", "/dev/shm"]
    processes.adopt_orphans()
    commands = Commands(args.bin)
    started, done, failed, died = time.monotonic(), 0, 0, 0
    while done < args.count if args.count else time.monotonic() - started < args.seconds:
        seed = args.seed or str(random.SystemRandom().randrange(10**9))
        began = time.monotonic()
        done += 1
        try:
            about, wrong = one(args, commands, seed)
        except PythonDied as error:
            died += 1
            print(f"none  {seed} {error}", flush=True)
            continue
        print(f"{'FAIL' if wrong else 'ok  '}  {about}, {time.monotonic() - began:.0f} s",
              flush=True)
        if wrong:
            failed += 1
            print(wrong, flush=True)
    print(f"{done} programs, {failed} failed" + (f", {died} of which plain Python could not run" if died else ""))
    sys.exit(1 if failed or died == done else 0)


if __name__ == "__main__":
    main()
