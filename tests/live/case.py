# SPDX-License-Identifier: MIT
"""case - what the tests of errors, of the keeper and of the module have in common

Each test has a directory of its own, a pool in it, and small programs that it writes there.
Exit statuses come from allocator/error.h. Of messages only the essential words are checked.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
import unittest

from commands import PATIENCE
from processes import Target, children_of, describe, is_dead, program_of

HERE = pathlib.Path(__file__).resolve().parent

# Counts, slowly; an epoch at each step. The marker makes a page that is found in the pool.
COUNTING = """
    import sys, time
    import pyheap
    marker = b"a page that a test can find in the pool " * 4000
    for step in range(int(sys.argv[1])):
        print(step)
        time.sleep(0.01)
        pyheap.epoch(f"step {step}")
    print("done", pyheap.active, len(marker))
"""
MARKER = b"a page that a test can find in the pool "


def statuses(header):
    """{name: exit status} of allocator/error.h."""
    text = pathlib.Path(header).read_text(encoding="ascii")
    found = {name: int(status)
             for name, status in re.findall(r"X\((PH_E\w+), -\d+, (\d+),", text)}
    assert len(found) > 10, "error.h is not as expected"
    return found


class Case(unittest.TestCase):
    """A directory, a pool, and ways to run, kill and recover small programs."""

    commands = None  # set by the runner
    python = "/usr/bin/python3"
    STATUS = {}  # set by the runner

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="live-case-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.pool = str(self.directory / "test.pm")
        self.out = self.directory / "out.txt"
        self.err = self.directory / "err.txt"

    # ---- running -------------------------------------------------------------------

    def script(self, text, name="script.py"):
        path = self.directory / name
        path.write_text(textwrap.dedent(text), encoding="ascii")
        return str(path)

    def argv(self, text, *arguments, options=(), pool=None):
        return [self.commands.run, "--pool", pool or self.pool, "--python", self.python,
                *options, self.script(text), *map(str, arguments)]

    def finish(self, argv, **more):
        """Run a command to its end. If it hangs, its program is killed as well."""
        more.setdefault("stdin", subprocess.DEVNULL)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              cwd=self.directory, **more) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                doing = [describe(pid) for pid in (process.pid, *children_of(process.pid))]
                for pid in children_of(process.pid):
                    Target(pid).signal(signal.SIGKILL)
                process.kill()
                out, err = process.communicate()
                self.fail("\n".join(["it hangs", *doing, out[-2000:], err[-2000:]]))
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def run_program(self, text, *arguments, options=(), **more):
        return self.finish(self.argv(text, *arguments, options=options), **more)

    def recover(self, *options, pool=None):
        return self.finish([self.commands.recover, *options, pool or self.pool])

    def start(self, argv, **more):
        """Start a keeper, its output into out.txt and err.txt. Whatever is left of it and its
        program is killed at the end of the test."""
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            keeper = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                      cwd=self.directory, **more)
        target = program_of(keeper, PATIENCE)
        self.assertIsNotNone(target, f"the keeper ended: {self.err.read_text()}")

        def clean():
            target.signal(signal.SIGKILL)
            target.close()
            keeper.kill()
            keeper.wait()

        self.addCleanup(clean)
        return keeper, target

    def small_file_system(self, size):
        """A tmpfs of its own, of @p size as mount(8) has it; only root can have one."""
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small file system")
        return self.mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def sharing_file_system(self):
        """One whose files can share blocks."""
        if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
            self.skipTest("only root can mount a file system, and mkfs.xfs makes one")
        image = self.directory / "xfs.img"
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
        return self.mounted("-t", "xfs", "-o", "loop", image)

    def mounted(self, *how):
        at = self.directory / "small"
        at.mkdir()
        mounted = subprocess.run(["mount", *how, at], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"mounting is not allowed here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", at], check=True)
        return at

    # ---- waiting -------------------------------------------------------------------

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited in vain until {what}; out: {self.out.read_text()[-500:]} "
                          f"err: {self.err.read_text()[-2000:]}")
            time.sleep(0.005)

    def wait_epoch(self, number=1, pool=None):
        self.wait_until(lambda: self.commands.progress(pool or self.pool) >= number,
                        f"epoch {number} is durable")

    def wait_printed(self, text):
        self.wait_until(lambda: text in self.out.read_text(), f"it printed {text!r}")

    # ---- killed runs ---------------------------------------------------------------

    def killed(self, steps=200, epochs=3, options=()):
        """A pool with an unfinished run of COUNTING. @return the keeper's exit status."""
        keeper, target = self.start(self.argv(COUNTING, steps, options=options))
        self.wait_epoch(epochs)
        target.signal(signal.SIGKILL)
        status = keeper.wait(PATIENCE)
        self.assertTrue(is_dead(target.pid))
        return status

    # ---- judging -------------------------------------------------------------------

    def assert_refused(self, done, error, *words):
        """The command ended with the status of `error`, and its text has all the words."""
        self.assertEqual(done.returncode, self.STATUS[error],
                         f"not {error}: {done.stdout}{done.stderr}")
        for word in words:
            self.assertIn(word.lower(), done.stderr.lower())
        self.assertLess(len(done.stderr.splitlines()), 25, "an essay instead of a message")

    def assert_ended(self, done, status=0):
        self.assertEqual(done.returncode, status, f"{done.stdout}{done.stderr}")

    def assert_killed(self, status, number):
        self.assertIn(status, (-number, 128 + number))


def data_of(file):
    """The offsets and contents of the parts of a sparse file that are not holes."""
    end = file.seek(0, os.SEEK_END)
    at = 0
    while at < end:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
        while at < hole:
            piece = os.pread(file.fileno(), min(hole - at, 64 << 20), at)
            yield at, piece
            at += len(piece)


def offsets_in(path, wanted):
    """Where the bytes occur in a sparse file."""
    found = []
    with open(path, "rb") as file:
        for start, piece in data_of(file):
            at = piece.find(wanted)
            while at >= 0:
                found.append(start + at)
                at = piece.find(wanted, at + 1)
    return found
