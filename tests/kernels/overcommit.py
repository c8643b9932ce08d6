#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""overcommit.py - programs where memory is charged as it is promised (vm.overcommit_memory=2)

    tests/kernels/overcommit.py BIN

Changes settings of the whole machine, so it is for the emulated one: run.py starts it there.
A chain is run whose limit is there always, comes with the recovery, or has gone by then; then
the limit is lowered until nothing can start. Whatever fails has to name memory as the reason.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

VM = pathlib.Path("/proc/sys/vm")
PROGRAM = """
import os, signal, pyheap
small = [bytearray(1000) for _ in range(20000)]
big = bytearray(64 << 20)
for i in range(4):
    big[i::4096] = bytes([i + 1]) * len(big[i::4096])
    small += [bytearray(3000) for _ in range(5000)]
    pyheap.epoch(wait=True)
    if i in (1, 2) and pyheap.status()["recoveries"] == i - 1:
        os.kill(os.getpid(), signal.SIGKILL)
if open("/proc/sys/vm/overcommit_memory").read() == "2\\n": # else it is had, and used
    try:
        bytearray(500 << 30)
    except MemoryError:
        print("refused")
print("ok", len(small), sum(big))
"""
LITTLE = "import pyheap; x = bytearray(16 << 20); pyheap.epoch(wait=True); print('fine')"


def run(*argv):
    return subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)


def charged():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Committed_AS"))


class Machine:
    def __init__(self, directory, programs):
        self.pool = pathlib.Path(directory, "test.pm")
        self.programs = pathlib.Path(programs)
        self.failed = 0

    def start(self, text):
        return run(self.programs / "pyheap-run", "--pool", self.pool, "--fresh", "--python",
                   "/usr/bin/python3", "-c", text)

    def check(self, what, right, shown):
        print(f"{'ok' if right else 'FAILED'}: {what}", *([] if right else [shown]), flush=True)
        self.failed += not right

    def chain(self, *modes):
        """Started in the first mode, recovered in each of the others."""
        done, said = None, ""
        for mode in modes:
            (VM / "overcommit_memory").write_text(str(mode))
            done = self.start(PROGRAM) if done is None else \
                run(self.programs / "pyheap-recover", self.pool)
            said += done.stderr
        right = done.stdout == "refused\n" * (modes[-1] == 2) + f"ok 40000 {10 * (64 << 8)}\n"
        self.check(f"overcommit_memory={modes}", right, f"{done.returncode} {done.stdout} {said}")

    def lower(self):
        (VM / "overcommit_memory").write_text("2")
        base = charged()
        fine = 0
        for mib in (400, 200, 120, 90, 60, 40, 20, 10):
            (VM / "overcommit_kbytes").write_text(str(base + (mib << 10)))
            done = self.start(LITTLE)
            went_well = (done.returncode, done.stdout) == (0, "fine\n")
            fine += went_well
            memory = "emory" in done.stderr and "the disk" not in done.stderr
            self.check(f"{mib} MiB left: {'enough' if went_well else 'too little'}",
                       went_well or memory, f"{done.returncode} {done.stderr}")
        self.check("400 MiB are enough, 10 MiB are not", 0 < fine < 8, fine)


def main():
    (VM / "overcommit_ratio").write_text("80")
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(directory, sys.argv[1])
        for modes in ((2, 2, 2), (0, 2, 0), (2, 0, 2)):
            machine.chain(*modes)
        machine.lower()
    (VM / "overcommit_memory").write_text("0")
    return 1 if machine.failed else 0


if __name__ == "__main__":
    sys.exit(main())
