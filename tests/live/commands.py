# SPDX-License-Identifier: MIT
"""commands - pyheap's programs as the tests call them, and what they print"""
import os
import shutil
import subprocess

PATIENCE = 60  # seconds that no command may take; reached only if something hangs


class Commands:
    """The programs in one bin directory."""

    def __init__(self, directory):
        directory = os.path.abspath(directory)
        self.run = os.path.join(directory, "pyheap-run")
        self.recover = os.path.join(directory, "pyheap-recover")
        for program in (self.run, self.recover):
            if not os.access(program, os.X_OK):
                raise SystemExit(f"{program} is missing; build first")

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
