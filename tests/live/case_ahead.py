# SPDX-License-Identifier: MIT
"""case_ahead - what is copied before the program is stopped (pyhook/ahead.c)"""
import os
import signal

from case import Case
from commands import PATIENCE

# Writes pieces of 64 KiB, each in one step of the interpreter, so at every epoch each of them is
# the one or the other as a whole; a copy that is made meanwhile is neither, now and then.
PIECES = """
    import random, sys, time, zlib
    import pyheap
    SIZE, N = 64 << 10, 48 * 16
    rng = random.Random(5)
    data = bytearray(N * SIZE)
    view = memoryview(data)
    fills = [bytes([v]) * SIZE for v in range(256)]
    have, pending = [0] * N, (0, 0)
    def check():
        for i in range(N):
            right = {have[i]} | ({pending[1]} if pending[0] == i else set())
            assert any(view[i * SIZE:(i + 1) * SIZE] == fills[v] for v in right), (i, right)
    recoveries, ahead = 0, 0
    for step in range(int(sys.argv[1])):
        slot, value = rng.randrange(N), rng.randrange(256)
        pending = slot, value
        view[slot * SIZE:(slot + 1) * SIZE] = fills[value]
        have[slot] = value
        status = pyheap.status()
        ahead = max(ahead, status["pages_ahead"])
        if status["recoveries"] != recoveries:
            recoveries = status["recoveries"]
            check()
        time.sleep(0.0003)
        if step % 100 == 0:
            print(step, zlib.crc32(data), flush=True)
    check()
    print("end", ahead > 0)
"""

# One thread computes in memory of its own, another takes epochs as it likes.
BETWEEN = """
    import sys, time, zlib
    import pyheap
    data = bytearray(32 << 20)
    for step in range(int(sys.argv[1])):
        data[::4096] = bytes([step % 251]) * len(data[::4096])
        if step % 3 == 0:
            pyheap.epoch()
        print(step, zlib.crc32(data), flush=True)
        if step % 10 == 0:
            hole = bytearray(b"x") * (8 << 20)
            del hole
    print("end")
"""

# Takes the right to read away from a block, and gives it back, all the time.
UNREADABLE = """
    import ctypes, sys, time
    import pyheap
    libc = ctypes.CDLL(None, use_errno=True)
    data = bytearray(16 << 20)
    start = ctypes.addressof(ctypes.c_char.from_buffer(data)) + 4096 & ~4095
    for step in range(int(sys.argv[1])):
        data[::4096] = bytes([step % 251]) * 4096
        for i in range(4):
            assert libc.mprotect(ctypes.c_void_p(start + (i << 20)), 1 << 19, 0) == 0
            time.sleep(0.002)
            assert libc.mprotect(ctypes.c_void_p(start + (i << 20)), 1 << 19, 3) == 0
        assert data[::4096] == bytes([step % 251]) * 4096, step
    print("end", pyheap.status()["epoch"] > 3)
"""

# More than the disk takes, for a while, at once or piece by piece: the epoch fails as it is copied
# ahead. Of an epoch with a part of it the pool has to keep that until two more are durable.
TOO_MUCH = """
    import os, sys, time, zlib
    import pyheap
    errors = []
    sys.unraisablehook = lambda what: errors.append(type(what.exc_value).__name__)
    def until(condition):
        while not condition():
            time.sleep(0.005)
    kept = os.urandom(16 << 20)
    sum = zlib.crc32(kept)
    until(lambda: pyheap.status()["durable"] >= 2)
    much = kept * 20 if sys.argv[1] == "at once" else [os.urandom(16 << 20) for _ in range(20)]
    until(lambda: errors)
    print(sorted(set(errors)), flush=True)
    del much
    seen = len(errors)
    durable = pyheap.status()["durable"]
    until(lambda: pyheap.status()["durable"] > durable + 2)
    print("goes on", len(errors) - seen < 3, flush=True)
    until(lambda: pyheap.status()["recoveries"])
    print("end", zlib.crc32(kept) == sum)
"""


class Ahead(Case):
    """pyhook/ahead.c"""

    def chain(self, text, steps, every, kills=5, epochs=3, options=()):
        """@return what it printed, after some kills."""
        env = dict(os.environ, PYHEAP_AHEAD_LEAST="1")
        options = ["--every", every, *options]
        keeper, target = self.start(self.argv(text, steps, options=options), env=env)
        at = 0
        for _ in range(kills):
            at = max(at, self.commands.newest(self.pool)) + epochs
            self.wait_epoch(at)
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            keeper, target = self.start([self.commands.recover, *options, self.pool], env=env)
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        return self.out.read_text()

    def test_no_torn_page_gets_into_an_epoch(self):
        out = self.chain(PIECES, 6000, "20ms", kills=8)
        self.assertEqual(out.splitlines()[-1], "end True")
        plain = self.run_program(PIECES, 6000, options=["--fresh"])
        self.assertEqual(out.splitlines()[:-1], plain.stdout.splitlines()[:-1])

    def test_the_programs_own_epochs_in_between(self):
        out = self.chain(BETWEEN, 150, "10ms")
        plain = self.run_program(BETWEEN, 150, options=["--fresh"])
        self.assertEqual(out, plain.stdout)

    def test_a_ring_much_smaller_than_what_has_changed(self):
        out = self.chain(PIECES, 3000, "20ms", kills=2, options=["--staging", "4M"])
        self.assertEqual(out.splitlines()[-1], "end True")

    def test_memory_that_cannot_be_read_just_then(self):
        self.assertEqual(self.chain(UNREADABLE, 500, "10ms", kills=3), "end True\n")

    def test_a_full_disk(self):
        self.fills_the_disk("at once")

    def test_a_full_disk_with_an_epoch_of_a_part(self):
        self.fills_the_disk("piece by piece")

    def fills_the_disk(self, how):
        small = self.small_file_system("200m")
        pool = str(small / "test.pm")
        keeper, target = self.start(self.argv(TOO_MUCH, how, options=["--every", "20ms"], pool=pool))
        self.wait_printed("goes on True")
        self.assertEqual(self.out.read_text().splitlines(), ["['PoolFullError']", "goes on True"])
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        done = self.recover(pool=pool)
        self.assert_ended(done)
        self.assertEqual(done.stdout.splitlines()[-1:], ["end True"])
