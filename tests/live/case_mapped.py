# SPDX-License-Identifier: MIT
"""case_mapped - a program that goes on before its heap has been read: it is mapped from the pool"""
import os
import pathlib
import re
import signal

from case import MARKER, Case, data_of, offsets_in
from commands import PATIENCE
from processes import is_dead

# Holds data that is recognised in the pool, and goes on step by step as files appear.
STEPS = """
    import os, signal, sys, time, zlib
    import pyheap
    data = bytearray(b"a page that a test can find in the pool " * 200000)
    total = zlib.crc32(data)
    def step(name):
        print("at", name, zlib.crc32(data) == total, flush=True)
        while not os.path.exists(name):
            time.sleep(0.005)
    pyheap.epoch(wait=True)
    if not pyheap.status()["recoveries"]:
        os.kill(os.getpid(), signal.SIGKILL)
"""
EPOCH_THEN_END = STEPS + """
    step("first")
    pyheap.epoch(wait=True)
    step("second")
    print("done", zlib.crc32(data) == total)
"""


class Segments(Case):
    TRACKED = """
        import os, signal, types, pyheap
        from multiprocessing import resource_tracker, shared_memory
        def write(fd, message):
            if armed and message.startswith(b"UN"):
                armed.clear()
                pyheap.epoch(wait=True)
                if not pyheap.status()["recoveries"]:
                    os.kill(os.getpid(), signal.SIGKILL)
            return os.write(fd, message)
        armed = []
        resource_tracker.os = types.SimpleNamespace(**{**vars(os), "write": write})
        held = [shared_memory.SharedMemory(create=True, size=5000) for _ in range(3)]
        held[0].buf[4999] = 7
        armed.append(1)
        held.pop().unlink()  # and an epoch before the tracker is told of it
        again = shared_memory.SharedMemory(held[0].name)
        assert again.buf[4999] == 7
        again.close()
        held.pop().unlink()
        print(held[0].name, resource_tracker._resource_tracker._pid, flush=True)
        if os.path.exists("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        held.pop().unlink()
        shared_memory.SharedMemory(create=True, size=5000).unlink()
    """

    def test_pythons_tracker_is_another_one(self):
        """At the same descriptor, to which the program was just about to write; nothing is said."""
        done = self.run_program(self.TRACKED, options=["--strict"])
        self.assert_killed(done.returncode, signal.SIGKILL)
        (self.directory / "die").touch()
        done = self.recover()
        self.assert_killed(done.returncode, signal.SIGKILL)
        path = pathlib.Path("/dev/shm") / done.stdout.split()[0]
        self.wait_until(lambda: not path.exists(), "the tracker has removed what is left over")
        (self.directory / "die").unlink()
        done = self.recover("--strict")
        self.assert_ended(done)
        self.assertNotIn("resource_tracker", done.stderr)
        self.assertFalse(path.exists())


class Mapped(Case):
    """Memory that is still mapped from the pool."""

    def setUp(self):
        super().setUp()
        os.environ["PYHEAP_MAP_LEAST"] = "1"
        self.addCleanup(os.environ.pop, "PYHEAP_MAP_LEAST")

    def saved(self, text):
        """A pool with one epoch of a program that is killed after it."""
        done = self.run_program(text)
        self.assert_killed(done.returncode, signal.SIGKILL)

    def go(self, name):
        (self.directory / name).touch()

    def mapped(self, target):
        """Kibibytes of the program that are mapped from the pool."""
        with open(f"/proc/{target.pid}/maps", encoding="ascii") as maps:
            lines = [line for line in maps if line.rstrip().endswith("test.pm")]
        ranges = [re.match(r"(\w+)-(\w+)", line).groups() for line in lines]
        return sum(int(end, 16) - int(start, 16) for start, end in ranges) >> 10

    def damage(self):
        found = offsets_in(self.pool, MARKER * 3)
        self.assertTrue(found, "the program's data is not in the pool")
        with open(self.pool, "r+b") as file:
            for at in found[len(found) // 2:]:
                os.pwrite(file.fileno(), b"A", at)

    def test_the_first_epoch_makes_ordinary_memory_of_it(self):
        self.saved(EPOCH_THEN_END)
        keeper, target = self.start([self.commands.recover, self.pool])
        self.wait_printed("at first True")
        self.assertGreater(self.mapped(target), 4096)
        self.go("first")
        self.wait_printed("at second True")
        self.assertEqual(self.mapped(target), 0)
        self.go("second")
        self.wait_printed("done True")
        self.assertEqual(keeper.wait(PATIENCE), 0)

    def test_nothing_is_mapped_that_is_to_be_checked_first(self):
        self.saved(EPOCH_THEN_END)
        keeper, target = self.start([self.commands.recover, "--check-first", self.pool])
        self.wait_printed("at first True")
        self.assertEqual(self.mapped(target), 0)
        self.go("first")
        self.go("second")
        self.wait_printed("done True")
        self.assertEqual(keeper.wait(PATIENCE), 0)

    def test_damage_ends_the_program_and_changes_nothing(self):
        self.saved(EPOCH_THEN_END)
        self.damage()
        self.go("first")
        self.go("second")
        before = self.commands.newest(self.pool)
        done = self.recover()
        self.assert_refused(done, "PH_ECORRUPT", "damaged", "page at 0x", "--epoch")
        self.assertNotIn("done", done.stdout)
        self.assertEqual(self.commands.newest(self.pool), before)
        done = self.recover("--check-first")
        self.assert_refused(done, "PH_ECORRUPT", "damaged", "page at 0x")
        self.assertEqual(done.stdout, "", "it was started on damaged memory")

    def test_damage_is_the_reason_given_for_a_crash(self):
        self.saved(STEPS + """
    os.kill(os.getpid(), signal.SIGSEGV)
""")
        self.damage()
        self.assert_refused(self.recover(), "PH_ECORRUPT", "damaged", "page at 0x")

    def test_a_program_that_ends_well_on_damaged_memory_has_not_finished(self):
        self.saved(STEPS)
        self.damage()
        self.assert_refused(self.recover(), "PH_ECORRUPT", "damaged", "page at 0x")
        self.assert_refused(self.recover(), "PH_ECORRUPT", "damaged")  # and not PH_EFINISHED

    def test_a_child_made_before_the_first_epoch_keeps_its_memory(self):
        self.saved(STEPS + """
    pid = os.fork()
    if pid == 0:
        while not os.path.exists("child"):
            time.sleep(0.005)
        os._exit(0 if zlib.crc32(data) == total else 1)
    for i in range(100):
        data[:] = bytes([i]) * len(data)
        pyheap.epoch(wait=True)
    open("child", "w").close()
    print("child", os.waitpid(pid, 0)[1])
""")
        done = self.recover()
        self.assert_ended(done)
        self.assertIn("child 0", done.stdout)

    def test_a_pool_cut_short_while_it_is_mapped(self):
        """By somebody else: the memory is gone, and a line says so. Whole again, it goes on."""
        self.saved(EPOCH_THEN_END)
        size = os.stat(self.pool).st_size
        with open(self.pool, "rb") as file:
            whole = list(data_of(file))
        for cut in (4096, offsets_in(self.pool, MARKER * 3)[0]):
            with self.subTest(cut):
                for text in self.out, self.err:
                    text.write_text("")
                keeper, target = self.start([self.commands.recover, self.pool])
                self.wait_printed("at first True")
                os.truncate(self.pool, cut)
                self.go("first")
                self.assertIn(keeper.wait(PATIENCE),
                              [self.STATUS[e] for e in ("PH_EIO", "PH_ECORRUPT", "PH_ETRUNC")])
                said = self.err.read_text()
                self.assertEqual(len(said.splitlines()), 1, said)
                self.assertRegex(said, "cut the file short|damaged|truncated")
                self.wait_until(lambda: is_dead(target.pid), "the program is gone")
                with open(self.pool, "r+b") as file:
                    file.truncate(size)
                    for at, piece in whole:
                        os.pwrite(file.fileno(), piece, at)
                os.remove(self.directory / "first")
        self.go("first")
        self.go("second")
        self.assert_ended(self.recover())

    def test_a_disk_that_is_full_after_a_recovery(self):
        """The first epoch fails and says so, the memory is whole, and the next one succeeds."""
        small = self.small_file_system("128m")
        self.pool = str(small / "test.pm")
        self.saved(STEPS + """
    step("first")
    more = os.urandom(120 << 20)  # more than all of the disk
    try:
        pyheap.epoch(wait=True)
    except pyheap.PoolFullError as error:
        print("full", zlib.crc32(data) == total, error, flush=True)
    del more
    step("second")
    pyheap.epoch(wait=True)
    print("done", zlib.crc32(data) == total)
""")
        keeper, target = self.start([self.commands.recover, self.pool])
        self.wait_printed("at first True")
        self.assertGreater(self.mapped(target), 4096)
        with open(small / "filler", "wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(bytes(4096))
        self.go("first")
        self.wait_printed("full True")
        self.wait_printed("at second True")
        os.remove(small / "filler")
        self.go("second")
        self.wait_printed("done True")
        self.assertEqual(keeper.wait(PATIENCE), 0)
