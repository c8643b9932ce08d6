#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""memory.py - programs in memory control groups of version 2 that are little larger than they

    tests/kernels/memory.py BIN

Makes control groups, so it is for the emulated machine: run.py starts it there. The program,
its keeper and the staging ring are in the group, as in a container. A chain is run that has to
go well where there is room for them; where there is not, the kernel kills the program, the
reason is said, and what is durable goes on where there is more.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

GROUPS = pathlib.Path("/sys/fs/cgroup")
MIB = 1 << 20
DATA = 64  # MiB; with Python, and rounded up to huge pages, the program needs 20 more

PROGRAM = f"""
import os, signal, pyheap
data = bytearray({DATA} << 20)
for step in range(4):
    for at in range(0, len(data), 4096):
        data[at] = step + 1
    data[step << 20:step + 1 << 20] = os.urandom(1 << 20)
    pyheap.epoch(wait=True)
    if step == 1 and not pyheap.status()["recoveries"]:
        os.kill(os.getpid(), signal.SIGKILL)
print("ok", data[-4096], pyheap.status()["staging_size"] >> 20)
"""


class Machine:
    def __init__(self, directory, programs):
        self.pool = pathlib.Path(directory, "test.pm")
        self.programs = pathlib.Path(programs)
        self.group = GROUPS / "pyheap-test"
        self.failed = self.peak = 0

    def check(self, what, right, shown):
        print(f"{'ok' if right else 'FAILED'}: {what}", *([] if right else [shown]), flush=True)
        self.failed += not right

    def run(self, limits, *argv):
        """A command in a new group with these limits, MiB."""
        self.group.mkdir()
        for name, value in limits.items():
            (self.group / f"memory.{name}").write_text(str(value * MIB))
        done = subprocess.run(["timeout", "-k", "1", "100", *map(str, argv)], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              preexec_fn=lambda: (self.group / "cgroup.procs").write_text(
                                  str(os.getpid())))
        peak = self.group / "memory.peak"  # Linux 5.19
        self.peak = int(peak.read_text()) // MIB if peak.exists() else 0
        self.group.rmdir()
        return done

    def start(self, limits, *options):
        return self.run(limits, self.programs / "pyheap-run", "--pool", self.pool, "--fresh",
                        *options, "--python", "/usr/bin/python3", "-c", PROGRAM)

    def recover(self, limits, *options):
        return self.run(limits, self.programs / "pyheap-recover", *options, self.pool)

    def enough(self, limits, *options):
        first = self.start(limits, *options)
        peak, done = self.peak, self.recover(limits, *options)
        words = done.stdout.split()
        ring = int(words[2]) if len(words) == 3 else 0
        self.check(f"{DATA} MiB in {limits} {' '.join(options)}: enough, with a ring of {ring}; "
                   f"{peak} were used, {self.peak} by the recovery",
                   words[:2] == ["ok", "4"] and 4 <= ring <= min(limits.values()) // 8
                   and "lack of memory" not in first.stderr + done.stderr,
                   f"{first.stderr} {done.returncode} {done.stdout} {done.stderr}")

    def too_little(self, limits):
        done = self.start(limits)
        self.check(f"{DATA} MiB in {limits}: too little, and said so",
                   done.returncode == -9 and "lack of memory" in done.stderr,
                   f"{done.returncode} {done.stderr}")

    def recovered_elsewhere(self, limits):
        """A recovery in too little, then one where there is more."""
        self.start({})
        done = self.recover(limits)
        self.check(f"a recovery in {limits}: too little, and said so",
                   done.returncode == -9 and "lack of memory" in done.stderr,
                   f"{done.returncode} {done.stderr}")
        done = self.recover({})
        self.check("and again without a limit", done.stdout.startswith("ok 4"),
                   f"{done.returncode} {done.stdout} {done.stderr}")


def main():
    (GROUPS / "cgroup.subtree_control").write_text("+memory")
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(directory, sys.argv[1])
        machine.enough({"max": 1000})
        machine.enough({"max": 1000}, "--staging", "4M")
        machine.enough({"max": DATA + 100})
        machine.enough({"max": DATA + 80}, "--staging", "4M")
        machine.enough({"high": DATA + 100})
        machine.enough({"high": DATA + 100, "max": DATA + 140})
        machine.too_little({"max": DATA + 14})
        machine.recovered_elsewhere({"max": DATA})
    return 1 if machine.failed else 0


if __name__ == "__main__":
    sys.exit(main())
