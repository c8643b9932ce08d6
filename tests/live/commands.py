# SPDX-License-Identifier: MIT
"""commands - pyheap's programs as the tests call them, and what they print"""
import os
import shutil
import struct
import subprocess

PATIENCE = 60  # seconds that no command may take; reached only if something hangs


# As allocator/pool_format.h has it.
PAGE, WITHIN = 4096, 16 << 20
SUPER = struct.pack("<QI", 0x4b4c425045485950, 5)  # magic and version of the superblock
ROOT = struct.Struct("<QQ 48x Q")                  # magic, sequence, newest epoch


class Progress:
    """The newest epoch of a pool, from its root records: for those who wait for one, as a
    process for each look takes the processor from what they wait for."""

    def __init__(self):
        self.at = {}  # pool's inode: offset of its superblock

    def newest(self, pool):
        """@return the number; 0: it has none; None: this cannot tell."""
        try:
            with open(pool, "rb", 0) as file:
                about = os.fstat(file.fileno())
                if about.st_size <= PAGE:
                    return 0  # a claim
                at = self.at.get((about.st_dev, about.st_ino)) or self.find(file)
                if not at or os.pread(file.fileno(), len(SUPER), at) != SUPER:
                    return None
                self.at[about.st_dev, about.st_ino] = at
                roots = [ROOT.unpack(os.pread(file.fileno(), ROOT.size, at + n * PAGE))
                         for n in (1, 2)]
                return max((seq, number) for _, seq, number in roots)[1]
        except FileNotFoundError:
            return 0

    def find(self, file):
        start = file.read(WITHIN)
        return next((at for at in range(0, len(start), PAGE) if start.startswith(SUPER, at)), None)


class Commands:
    """The programs in one bin directory."""

    def __init__(self, directory):
        directory = os.path.abspath(directory)
        self.run = os.path.join(directory, "pyheap-run")
        self.recover = os.path.join(directory, "pyheap-recover")
        for program in (self.run, self.recover):
            if not os.access(program, os.X_OK):
                raise SystemExit(f"{program} is missing; build first")
        self.roots = Progress()

    def list(self, pool):
        """(status, {epoch: its line}, stderr) of pyheap-recover --list."""
        done = subprocess.run([self.recover, "--list", pool], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=PATIENCE)
        epochs = {}
        for line in done.stdout.splitlines():
            words = line.split()
            if words and words[0].isdigit():
                epochs[int(words[0])] = line
        return done.returncode, epochs, done.stderr

    def newest(self, pool):
        """The number of the newest durable epoch, 0 if there is none."""
        _, epochs, _ = self.list(pool)
        return max(epochs, default=0)

    def progress(self, pool):
        """The same, faster, while a run is under way."""
        newest = self.roots.newest(pool)
        return self.newest(pool) if newest is None else newest

    def verify(self, pool):
        """None, or what is wrong with the pool."""
        done = subprocess.run([self.recover, "--verify", pool], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=10 * PATIENCE)
        if done.returncode == 0:
            return None
        return f"--verify ended with {done.returncode}: {done.stdout}{done.stderr}"


def pmempool_check(pool):
    """None, or what pmempool says; None as well where it is not installed."""
    if not shutil.which("pmempool"):
        return None
    done = subprocess.run(["pmempool", "check", "-v", pool], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          timeout=10 * PATIENCE)
    if done.returncode == 0:
        return None
    return f"pmempool check ended with {done.returncode}: {done.stdout}"
