# SPDX-License-Identifier: MIT
"""case_release - a pool made on this machine goes on in another release of Debian, and back

The other release is a root directory that PYHEAP_OTHER_ROOT names: scripts/test-release makes
one. It has another C library and another Python, and none of this one's.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from case import Case
from commands import PATIENCE

OTHER = os.environ.get("PYHEAP_OTHER_ROOT")

# Threads, libc's heap, a C extension in the middle of its data, arrays where there is NumPy.
COMPUTING = """
    import hashlib, json, random, sys, threading, zlib
    try:
        import numpy
    except ImportError:
        numpy = None
    try:
        import pyheap
    except ImportError:  # in plain Python
        class pyheap:
            epoch = staticmethod(lambda: None)
    numbers = random.Random(4)
    digest, packer = hashlib.sha256(), zlib.compressobj()
    packed, locked = b"", threading.Lock()
    def other():
        with locked:
            pass
    locked.acquire()
    thread = threading.Thread(target=other)
    thread.start()
    array = numpy and numpy.arange(40000.0).reshape(200, 200)
    for step in range(int(sys.argv[1])):
        text = json.dumps([step, numbers.random()]).encode() * 10
        digest.update(text)
        packed += packer.compress(text)
        if numpy:
            array = array @ array / numpy.abs(array).max() ** 2
        pyheap.epoch()
        print(step, digest.hexdigest(), flush=True)
    locked.release()
    thread.join()
    print(zlib.crc32(zlib.decompress(packed + packer.flush())))
"""


@unittest.skipUnless(OTHER and os.geteuid() == 0,
                     "PYHEAP_OTHER_ROOT names no root directory: see scripts/test-release")
class OtherRelease(Case):
    """The pool is carried between here and there; what it needs is in it."""

    def setUp(self):
        super().setUp()
        self.there = pathlib.Path(tempfile.mkdtemp(prefix="live-release-", dir=f"{OTHER}/tmp"))
        self.addCleanup(shutil.rmtree, self.there, ignore_errors=True)
        built = pathlib.Path(self.commands.recover).parent.parent
        for part in ("bin", "lib/pyheap", "libexec/pyheap"):
            shutil.copytree(built / part, self.there / part)
        os.mkdir(self.there / "work")
        # Programs find their working directory under the same name.
        self.twin = pathlib.Path(OTHER, str(self.directory)[1:])
        self.twin.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, self.twin, ignore_errors=True)
        self.mount("-t", "proc", "proc", f"{OTHER}/proc")
        for name in ("null", "urandom"):
            self.mount("--bind", f"/dev/{name}", f"{OTHER}/dev/{name}")
        self.wanted = subprocess.run([self.python, self.script(COMPUTING), "200"],
                                     capture_output=True, text=True, check=True).stdout

    def mount(self, *arguments):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"mounting is not allowed here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", arguments[-1]], check=True)

    def inside(self, path):
        return "/" + str(pathlib.Path(path).relative_to(OTHER))

    def chroot(self, command, *arguments):
        return ["chroot", OTHER, self.inside(self.there / "bin" / command), *arguments]

    def kill_at(self, argv, step):
        keeper, target = self.start(argv)
        self.wait_printed(f"\n{step} ")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)

    def carry(self, pool, to):
        """As --pack does, on whichever side."""
        to = self.twin / to if str(pool).startswith(str(self.directory)) else self.directory / to
        done = self.finish([self.commands.recover, "--pack", str(to), str(pool)])
        self.assert_ended(done)
        return to

    def assert_ends(self, argv):
        """And what it prints follows what is there."""
        with open(self.out, "ab") as out:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, text=True,
                                  stderr=subprocess.PIPE, cwd=self.directory, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.out.read_text(), self.wanted)

    def test_from_here_to_there_and_back(self):
        self.kill_at(self.argv(COMPUTING, 200), 60)
        pool = self.carry(self.pool, "there.pm")
        self.kill_at(self.chroot("pyheap-recover", self.inside(pool)), 120)
        self.assertRegex(self.err.read_text(), "copies are used: .*python3")
        pool = self.carry(pool, "back.pm")
        self.assert_ends([self.commands.recover, str(pool)])

    def test_from_there_to_here_and_back(self):
        program = self.twin / "script.py"
        shutil.copy(self.script(COMPUTING), program)
        pool = self.twin / "test.pm"
        self.kill_at(self.chroot("pyheap-run", "--pool", self.inside(pool), "--python",
                                 "/usr/bin/python3", self.inside(program), "200"), 60)
        pool = self.carry(pool, "here.pm")
        self.err.write_text("")
        self.kill_at([self.commands.recover, str(pool)], 120)
        self.assertRegex(self.err.read_text(), "copies are used: .*python3")
        pool = self.carry(pool, "again.pm")
        self.assert_ends(self.chroot("pyheap-recover", self.inside(pool)))
