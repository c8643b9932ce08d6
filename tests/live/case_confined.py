# SPDX-License-Identifier: MIT
"""case_confined - system calls that are denied, and limits: it works, or one line says why not"""
import ctypes
import errno
import os
import pathlib
import resource
import signal
import unittest

from case import Case
from commands import PATIENCE
from denied import CALLS, denying

# Holds some of everything, and is killed after its fourth epoch.
HOLDING = """
    import os, select, signal, socket, sys, threading, time
    import pyheap
    waiting = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(2)]
    for thread in waiting: thread.start()
    file = open("written", "w")
    r, w = os.pipe()
    os.write(w, b"x")
    a, b = socket.socketpair()
    b.send(b"y")
    epoll = select.epoll()
    epoll.register(r)
    data = bytearray(int(sys.argv[1]) << 20)
    for step in range(6):
        for at in range(step, len(data), 4096):
            data[at] = step + 1
        file.write(f"{step}\\n")
        pyheap.epoch(wait=True)
        if step == 3 and not pyheap.status()["recoveries"]:
            os.kill(os.getpid(), signal.SIGKILL)
    file.close()
    assert open("written").read().split() == list("012345")
    assert sum(data) == 21 * (len(data) // 4096)
    assert a.recv(9) == b"y" and (os.read(r, 9) if len(sys.argv) < 3 else b"x") == b"x"
    print("held", pyheap.status()["staging_size"])
"""


class Confined(Case):
    def chain(self, *arguments, options=(), **more):
        """Killed once, recovered once, all under the same conditions. @return its output."""
        first = self.run_program(HOLDING, *(arguments or ["1"]), options=options, **more)
        self.assert_killed(first.returncode, signal.SIGKILL)
        done = self.finish([self.commands.recover, self.pool], **more)
        self.assert_ended(done)
        self.assertIn("held", done.stdout)
        return done.stdout, first.stderr + done.stderr

    def assert_says(self, text, *words):
        """One line, and the words in it."""
        lines = [line for line in text.splitlines() if "pyheap" in line]
        self.assertTrue([line for line in lines if all(word in line for word in words)], text)


class DeniedCalls(Confined):
    # What cannot be done without is said, by whom it says: at the start, by epoch(), later.
    AT_START = {"memfd_create": "memfd_create", "socketpair": "socketpair", "linkat": "linkat"}
    BY_EPOCH = {"prctl": "PR_GET_TID_ADDRESS", "PR_GET_TID_ADDRESS": "PR_GET_TID_ADDRESS"}
    BY_RECOVERY = {"PR_SET_MM": "PR_SET_MM_MAP"}
    NAMED = {"tee"}  # a pipe with something in it cannot come back

    def each(self, call, error):
        for path in self.directory.glob("*"):
            path.unlink()
        more = {"preexec_fn": denying(call, error=error)}
        if call in self.AT_START:
            self.assert_refused(self.run_program(HOLDING, 1, **more), "PH_EKERNEL",
                                self.AT_START[call])
            self.assertFalse(os.path.exists(self.pool))
        elif call in self.BY_EPOCH:
            done = self.run_program(HOLDING, 1, **more)
            self.assert_ended(done, 1)
            self.assert_says(done.stderr, "UnsupportedError", self.BY_EPOCH[call])
        elif call in self.BY_RECOVERY:
            self.run_program(HOLDING, 1)
            self.assert_refused(self.finish([self.commands.recover, self.pool], **more),
                                "PH_EKERNEL", self.BY_RECOVERY[call])
            self.assert_ended(self.recover())
        elif call == "clone3" and error == errno.EPERM:  # libc makes no thread then
            self.assert_refused(self.run_program(HOLDING, 1, **more), "PH_ENOMEM", "a thread")
        elif call in self.NAMED:
            said = self.chain("1", "without", **more)[1]
            self.assert_says(said, "a pipe", "cannot come back")
        else:
            self.assertNotIn("cannot", self.chain(**more)[1])

    def test_each_call_that_may_be_denied(self):
        for call in CALLS:
            for error in (errno.EPERM, errno.ENOSYS):
                with self.subTest(f"{call}: {errno.errorcode[error]}"):
                    self.each(call, error)


class SmallLimits(Confined):
    def limited(self, **limits):
        def install():
            for name, value in limits.items():
                resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
        return {"preexec_fn": install}

    def test_what_is_enough(self):
        for limits in ({"STACK": 256 << 10}, {"MEMLOCK": 0}, {"NOFILE": 64}, {"CORE": 0},
                       {"MSGQUEUE": 0}, {"RSS": 1 << 20}):
            with self.subTest(str(limits)):
                for path in self.directory.glob("*"):
                    path.unlink()
                self.chain(**self.limited(**limits))

    def test_descriptors_that_are_too_few(self):
        """Whatever fails for it says so, and is no damage and no lack of memory."""
        text = """
            import os, sys, pyheap
            held = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), 9)
            print("ok")
        """
        self.assert_killed(self.run_program(text, **self.limited(NOFILE=40)).returncode,
                           signal.SIGKILL)
        refused, done, other = 0, None, str(self.directory / "other.pm")
        for number in range(5, 44, 3):
            more = self.limited(NOFILE=number)
            first = self.finish(self.argv(text, pool=other, options=["--fresh"]), **more)
            if first.returncode not in (-signal.SIGKILL, 127):  # 127: the dynamic loader's
                self.assertRegex(first.stderr, "raise ulimit -n|Too many open files")
            done = self.finish([self.commands.recover, self.pool], **more)
            if done.returncode == 0:
                break
            if done.returncode != 127:
                refused += 1
                self.assert_refused(done, "PH_EMFILE", "raise ulimit -n")
        self.assert_ended(done)
        self.assertGreater(refused, 1)

    @unittest.skipUnless(os.geteuid() == 0, "only root can unmount")
    def test_no_proc(self):
        def without(argv):
            return self.finish(["unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh",
                                *argv])
        self.run_program(HOLDING, 1)
        for argv in ([self.commands.recover, self.pool], self.argv(HOLDING, 1, options=["--fresh"])):
            self.assert_refused(without(argv), "PH_EKERNEL", "/proc is not mounted")
        self.assert_ended(without([self.commands.recover, "--list", self.pool]))
        self.assert_ended(self.recover())

    def test_a_stack_that_is_small_and_a_program_that_is_not(self):
        self.chain("100", **self.limited(STACK=256 << 10))

    def test_the_size_of_files(self):
        limit = self.limited(FSIZE=2 << 30)
        self.assert_refused(self.run_program(HOLDING, 1, **limit), "PH_EPOOLSIZE", "ulimit -f")
        self.assertFalse(os.path.exists(self.pool))
        self.chain(options=["--pool-size", "1G", "--staging", "16M"], **limit)

    def test_the_size_of_files_is_the_programs_to_keep(self):
        """The keeper raises it for itself where it may; the program has what it was given."""
        text = """
            import errno, os, resource, pyheap
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            assert limit[0] == 1 << 20 != limit[1], limit
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), 9)
            assert resource.getrlimit(resource.RLIMIT_FSIZE) == limit
            try:
                open("large", "wb").write(bytes(2 << 20))
            except OSError as error:
                assert error.errno == errno.EFBIG
                print("ok")
        """
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        more = {"preexec_fn":
                lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))}
        self.assert_killed(self.run_program(text, **more).returncode, signal.SIGKILL)
        self.assertEqual(self.finish([self.commands.recover, self.pool], **more).stdout, "ok\n")

    def test_data(self):
        self.chain("50", **self.limited(DATA=400 << 20))

    # What a program needs of addresses beside its own: the pool, of which pyheap-run maps all,
    # is half of what there is; the staging ring is an eighth.
    def test_addresses(self):
        self.assertIn("held", self.chain("50", **self.limited(AS=3 << 30))[0])

    def test_the_legacy_layout_of_addresses(self):
        """setarch -L, vm.legacy_va_layout: the kernel's mappings begin at a third of what there is."""
        def legacy():
            assert ctypes.CDLL(None).personality(0x0200000) >= 0  # ADDR_COMPAT_LAYOUT
        self.chain("50", preexec_fn=legacy)

    def test_memory_that_the_program_has_protected(self):
        """It is not taken for what is only kept free for the heap."""
        text = """
            import ctypes, os, pyheap
            libc = ctypes.CDLL(None, use_errno=True)
            def protect(block, protection):
                at = (ctypes.addressof(ctypes.c_char.from_buffer(block)) + 4095) & ~4095
                assert libc.mprotect(ctypes.c_void_p(at), 1 << 20, protection) == 0
            blocks = [bytearray(bytes([i + 1]) * (3 << 20)) for i in range(4)]
            for block, protection in zip(blocks, (1, 0, 1, 0)):
                protect(block, protection)
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), 9)
            for block in blocks:
                protect(block, 3)
            more = [bytearray(3 << 20) for _ in range(8)]
            print("ok", [block == bytes([i + 1]) * (3 << 20) for i, block in enumerate(blocks)])
        """
        for limits in ({"AS": 3 << 30}, {"DATA": 400 << 20}):
            with self.subTest(str(limits)):
                for path in self.directory.glob("*"):
                    path.unlink()
                more = self.limited(**limits)
                self.assert_killed(self.run_program(text, **more).returncode, signal.SIGKILL)
                self.assertEqual(self.finish([self.commands.recover, self.pool], **more).stdout,
                                 f"ok {[True] * 4}\n")

    def test_a_program_that_needs_more_than_there_is_gets_a_memory_error(self):
        text = """
            import mmap, os, pyheap
            # For the epoch, since the heap keeps what it has had.
            spare = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            held = []
            try:
                while True:
                    held.append(bytearray(3 << 20))
            except MemoryError:
                pass
            assert 10 < len(held) < 1 << 10, len(held)
            del held[4:]
            spare.close()
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), 9)
            more = [bytearray(3 << 20) for _ in range(8)]
            print("ok", [part[-1] for part in held + more])
        """
        more = self.limited(AS=2 << 30)
        self.assert_killed(self.run_program(text, **more).returncode, signal.SIGKILL)
        self.assertEqual(self.finish([self.commands.recover, self.pool], **more).stdout,
                         f"ok {[0] * 12}\n")

    def test_an_epoch_without_memory_fails_and_the_program_goes_on(self):
        text = """
            import pyheap
            pyheap.epoch(wait=True)
            held, size = [], 3 << 20
            while size >= 4096:
                try:
                    held.append(bytearray(size))
                except MemoryError:
                    size //= 2
            try:
                pyheap.epoch(wait=True)
                print("taken")
            except pyheap.Error as error:
                print(error)
            del held
            pyheap.epoch(wait=True)
            print("done")
        """
        done = self.run_program(text, **self.limited(DATA=100 << 20))
        self.assert_ended(done)
        first, last = done.stdout.splitlines()
        self.assertEqual(last, "done")
        self.assertTrue(first == "taken" or "out of memory" in first, done.stdout)

    def test_a_limit_that_comes_with_the_recovery(self):
        """The heap's range was whole, and is in pieces then; and the other way."""
        options = ["--pool-size", "1G", "--staging", "64M"]
        for before, after in (({}, {"AS": 2 << 30}), ({}, {"DATA": 400 << 20}),
                              ({"AS": 2 << 30}, {}), ({"DATA": 400 << 20}, {"AS": 3 << 30})):
            with self.subTest(f"{before} {after}"):
                for path in self.directory.glob("*"):
                    path.unlink()
                first = self.run_program(HOLDING, 50, options=options, **self.limited(**before))
                self.assert_killed(first.returncode, signal.SIGKILL)
                done = self.finish([self.commands.recover, "--staging", "64M", self.pool],
                                   **self.limited(**after))
                self.assert_ended(done)
                self.assertIn("held", done.stdout)

    def test_signals(self):
        if os.geteuid() == 0:  # CAP_SYS_RESOURCE
            self.skipTest("root may queue as many signals as it likes")
        done = self.run_program(HOLDING, 1, **self.limited(SIGPENDING=0))
        self.assert_ended(done, 1)
        self.assert_says(done.stderr, "ThreadError", "ulimit -i")

    def test_processes(self):
        if os.geteuid() == 0:
            self.skipTest("root may have as many processes as it likes")
        done = self.run_program(HOLDING, 1, **self.limited(NPROC=1))
        self.assert_refused(done, "PH_ENOMEM", "ulimit -v or -u")


@unittest.skipUnless(os.geteuid() == 0, "only root can make a memory control group")
class MemoryGroup(Confined):
    """The program, its keeper and the staging memory in one group, as in a container."""

    def group(self, limit):
        """@return a preexec_fn that enters a group with this limit."""
        for mount, name in (("/sys/fs/cgroup", "memory.max"),
                            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            path = pathlib.Path(mount, f"pyheap-test-{os.getpid()}")
            try:
                path.mkdir()
            except OSError:
                continue
            self.addCleanup(path.rmdir)
            if not (path / name).exists():  # without this controller, or no control groups
                continue
            (path / name).write_text(str(limit))
            return lambda: (path / "cgroup.procs").write_text(str(os.getpid()))
        self.skipTest("no memory control groups that can be made here")

    def test_staging_leaves_room_for_the_program(self):
        """More than half of the group's memory changes in each epoch."""
        out, _ = self.chain("160", preexec_fn=self.group(256 << 20))
        self.assertLessEqual(int(out.split()[1]), (256 << 20) // 8)
