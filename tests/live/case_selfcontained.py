# SPDX-License-Identifier: MIT
"""case_selfcontained - a pool is enough: libraries and the interpreter may be replaced or gone"""
import ctypes
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import unittest

from case import Case, offsets_in
from commands import PATIENCE, pmempool_check

# Calls into a library of its own, and checks what it says; imports nothing later on.
CALLING = """
    import ctypes, json, sys, time, zlib
    import pyheap
    library = ctypes.CDLL(sys.argv[2])
    library.crc32.restype = ctypes.c_ulong
    library.crc32.argtypes = ctypes.c_ulong, ctypes.c_char_p, ctypes.c_uint
    text = json.dumps(list(range(1000))).encode()
    for step in range(int(sys.argv[1])):
        assert library.crc32(step, text, len(text)) == zlib.crc32(text, step)
        print(step, flush=True)
        time.sleep(0.005)
        pyheap.epoch(f"step {step}")
    print("done", pyheap.active)
"""
# Maps a file that is gone by its last epoch, with the same mappings as in the one before.
DELETING = """
    import mmap, os, signal, time
    import pyheap
    with open("data", "wb") as file:
        file.write(b"what nobody else has" * 5000)
    with open("data", "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for step in range(4):
        pyheap.epoch()
    os.unlink("data")
    pyheap.epoch(wait=True)
    if not pyheap.status()["recoveries"]:
        os.kill(os.getpid(), signal.SIGKILL)
    print("done", data[:] == b"what nobody else has" * 5000)
"""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "test", "dist-packages", "site-packages",
                                  "ensurepip", "idlelib", "tkinter", "turtledemo",
                                  "config-*", "lib2to3")


def of_python(python, code):
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class SelfContained(Case):
    """Programs with an interpreter and a library of their own, which then vanish."""

    def setUp(self):
        super().setUp()
        source = of_python(self.python, """
import ctypes.util
name = ctypes.util.find_library("z")
if name:
    ctypes.CDLL(name)
    for line in open("/proc/self/maps"):
        if "libz" in line:
            print(line.split()[-1])
            break
""")
        if not source:
            self.skipTest("no libz to make a copy of")
        self.library = str(self.directory / "libown.so")
        shutil.copy(os.path.realpath(source), self.library)

    # ---- what they share ------------------------------------------------------------

    def own_python(self):
        """A copy of the interpreter and its standard library. The path of the executable."""
        executable, version, stdlib = of_python(self.python, """
import os, sys, sysconfig
print(os.path.realpath(sys.executable), "python%d.%d" % sys.version_info[:2],
      sysconfig.get_path("stdlib"), sep="|")
""").split("|")
        linked = subprocess.run(["ldd", executable], capture_output=True, text=True)
        if "libpython" in linked.stdout:
            self.skipTest(f"{self.python} needs a libpython, which a copy would not find")
        tree = self.directory / "tree"
        (tree / "bin").mkdir(parents=True)
        shutil.copytree(stdlib, tree / "lib" / version, ignore=LEFT_OUT)
        return shutil.copy(executable, tree / "bin" / "python3")

    def begin(self, python=None, pool=None, steps=100_000):
        argv = self.argv(CALLING, steps, self.library, pool=pool)
        if python:
            argv[argv.index("--python") + 1] = python
        return self.start(argv)

    def kill_program(self, keeper, target):
        """The keeper lives on, and stores what is left to be stored."""
        target.signal(signal.SIGKILL)
        self.assert_killed(keeper.wait(PATIENCE), signal.SIGKILL)

    def test_a_library_that_is_open_as_well(self):
        """As libffi's is in newer releases: by itself. The copy is read on from where it was."""
        with open(self.library, "rb") as file:
            content = file.read()
        text = """
            import ctypes, hashlib, os, sys, pyheap
            library = ctypes.CDLL(sys.argv[1])
            file = open(sys.argv[1], "rb", 0)
            file.seek(1000)
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), 9)
            pyheap.epoch(wait=True)
            print(hashlib.sha256(file.read()).hexdigest(), os.fstat(file.fileno()).st_size)
            if pyheap.status()["recoveries"] == 1:
                os.kill(os.getpid(), 9)
        """
        wanted = f"{hashlib.sha256(content[1000:]).hexdigest()} {len(content)}\n"
        self.assert_killed(self.run_program(text, self.library).returncode, signal.SIGKILL)
        for change in os.remove, lambda path: pathlib.Path(path).write_bytes(content[::-1]):
            change(self.library)
            self.assertEqual(self.recover("--epoch", "1").stdout, wanted)
        self.assertEqual(self.recover().stdout, wanted)

    def killed_run(self, python=None, epochs=5):
        keeper, target = self.begin(python)
        self.wait_epoch(epochs)
        self.kill_program(keeper, target)
        self.assert_self_contained()

    def listed(self, pool=None):
        done = self.finish([self.commands.recover, "--list", pool or self.pool])
        found = re.search(r"^self-contained: (.*)$", done.stdout, re.MULTILINE)
        return found.group(1) if found else done.stdout

    def assert_self_contained(self, pool=None):
        self.assertRegex(self.listed(pool), r"^yes, \d\d* mapped files, [\d.]+ MiB")
        self.assertIsNone(self.commands.verify(pool or self.pool))

    def goes_on(self, *copies, argv=None, **more):
        """Recover, see it take some epochs, kill it again. Of `copies` the message speaks."""
        before = self.commands.newest(self.pool)
        self.err.write_text("")
        keeper, target = self.start(argv or [self.commands.recover, self.pool], **more)
        self.wait_epoch(before + 5)
        self.kill_program(keeper, target)
        said = self.err.read_text()
        for copy in copies:
            self.assertRegex(said, rf"pool's copies are used: .*{re.escape(copy)}")
        if not copies:
            self.assertNotIn("copies", said)
        return said

    def output(self):
        """The steps printed, which must be each step exactly once."""
        steps = [int(line) for line in self.out.read_text().split() if line.isdigit()]
        self.assertEqual(steps, list(range(len(steps))))
        return len(steps)

    def test_a_file_is_deleted_between_epochs_and_is_still_mapped(self):
        self.assert_killed(self.run_program(DELETING).returncode, signal.SIGKILL)
        done = self.recover()
        self.assert_ended(done)
        self.assertIn("done True", done.stdout)

    # ---- replaced, gone --------------------------------------------------------------

    def test_a_library_is_replaced_by_an_upgrade(self):
        self.killed_run()
        new = self.library + ".new"
        pathlib.Path(new).write_bytes(b"\x7fELF, but of no use to anyone\n" * 5000)
        os.rename(new, self.library)
        self.goes_on("libown.so")
        self.goes_on()  # it is part of the epochs now
        self.output()

    def test_a_library_with_the_same_size_and_time_but_another_build(self):
        self.killed_run()
        before = os.stat(self.library)
        with open(self.library, "r+b") as file:
            page = file.read(4096)
            at = page.find(b"GNU\0") + 4  # the build id's first bytes follow the note's name
            self.assertGreater(at, 4)
            os.pwrite(file.fileno(), bytes(255 - b for b in page[at:at + 8]), at)
        os.utime(self.library, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertEqual(os.stat(self.library).st_mtime_ns, before.st_mtime_ns)
        self.goes_on("libown.so")

    def test_a_library_installed_again_is_used_as_it_is(self):
        self.killed_run()
        shutil.copy(self.library, self.library + ".again")  # same content, another time
        os.rename(self.library + ".again", self.library)
        self.goes_on()
        self.assert_self_contained()

    def test_the_interpreter_is_deleted(self):
        """A chain: after the first recovery the program is anonymous memory altogether."""
        self.killed_run(self.own_python())
        shutil.rmtree(self.directory / "tree")
        os.unlink(self.library)
        self.goes_on("python3")
        self.goes_on()
        self.assert_self_contained()
        self.goes_on()
        self.assertGreater(self.output(), 15)

    def test_it_ends_well_without_its_interpreter(self):
        keeper, target = self.begin(self.own_python(), steps=60)
        self.wait_epoch(5)
        self.kill_program(keeper, target)
        shutil.rmtree(self.directory / "tree")
        self.assert_ended(self.finish([self.commands.recover, self.pool]))

    def test_without_a_copy_it_is_refused_by_name(self):
        """Keeper and program are killed before anything was stored."""
        keeper, target = self.begin()
        self.wait_epoch(2)
        keeper.kill()
        target.signal(signal.SIGKILL)
        target.wait_dead(PATIENCE)
        keeper.wait()
        self.assertRegex(self.listed(), r"^no, \d+ of \d+ mapped files are not in the pool")
        os.rename(self.library, self.library + ".away")
        self.assert_refused(self.finish([self.commands.recover, self.pool]), "PH_EFILES",
                            "libown.so")
        # The next run stores what this one could not.
        os.rename(self.library + ".away", self.library)
        self.goes_on()
        self.assert_self_contained()

    def test_it_is_stored_while_the_program_runs(self):
        keeper, target = self.begin()
        self.wait_until(lambda: self.listed().startswith("yes"), "it is self-contained")
        target.signal(signal.SIGKILL)
        keeper.kill()
        keeper.wait()
        target.wait_dead(PATIENCE)
        os.unlink(self.library)
        self.goes_on("libown.so")

    def test_a_damaged_copy_is_found_before_anything_is_touched(self):
        self.killed_run()
        with open(self.library, "rb") as file:
            file.seek(64 << 10)
            marker = file.read(200)
        found = offsets_in(self.pool, marker)
        self.assertTrue(found, "the library is not in the pool")
        with open(self.pool, "r+b") as file:
            for at in found:
                os.pwrite(file.fileno(), b"damage", at)
        done = self.recover("--verify")
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn("libown.so", done.stderr)
        os.rename(self.library, self.library + ".away")
        self.assert_refused(self.finish([self.commands.recover, self.pool]), "PH_ECORRUPT",
                            "libown.so")
        os.rename(self.library + ".away", self.library)
        self.goes_on()

    # ---- elsewhere -------------------------------------------------------------------

    def test_packed_and_moved(self):
        self.killed_run(self.own_python(), epochs=80)
        packed = str(self.directory / "packed")
        self.assert_ended(self.finish([self.commands.recover, "--pack", packed, self.pool]))
        self.assertLessEqual(os.stat(packed).st_blocks, os.stat(self.pool).st_blocks)
        self.assertEqual(os.stat(packed).st_mode & 0o777, 0o600)
        self.assert_self_contained(packed)
        self.assertIsNone(pmempool_check(packed))
        self.assert_refused(self.finish([self.commands.recover, "--pack", packed, self.pool]),
                            "PH_EUSAGE", "packed")
        self.assertEqual(self.commands.list(packed)[1].keys(),
                         self.commands.list(self.pool)[1].keys())
        os.unlink(self.pool)
        (self.directory / "elsewhere").mkdir()
        self.pool = str(self.directory / "elsewhere" / "other.pm")
        os.rename(packed, self.pool)
        shutil.rmtree(self.directory / "tree")
        self.goes_on("python3")
        self.goes_on()
        self.assertIsNone(pmempool_check(self.pool))
        self.output()

    def test_a_missing_feature_of_the_processor_is_named_first(self):
        self.killed_run()
        before = [self.out.read_bytes(), self.commands.list(self.pool)]
        for feature in ("sse2", "fma" if "fma" in pathlib.Path("/proc/cpuinfo").read_text()
                        .split() else "sse"):
            done = self.finish([self.commands.recover, self.pool],
                               env={**os.environ, "PYHEAP_FORCE_CPU_WITHOUT": feature})
            self.assert_refused(done, "PH_ECPU", f"({feature})")
        self.assertEqual([self.out.read_bytes(), self.commands.list(self.pool)], before)
        self.goes_on()
        self.output()

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount and be another host")
    def test_another_host_and_another_place_to_mount_the_pool(self):
        there, here = self.directory / "there", self.directory / "here"
        there.mkdir()
        here.mkdir()
        inside = str(there / "test.pm")
        keeper, target = self.begin(self.own_python(), pool=inside)
        self.pool = inside
        self.wait_epoch(5)
        self.kill_program(keeper, target)
        self.mount("--bind", there, here)
        self.pool = str(here / "test.pm")
        shutil.rmtree(self.directory / "tree")
        libc = ctypes.CDLL(None, use_errno=True)

        def other_host():  # in the keeper itself: a helper would be taken for its program
            if libc.unshare(0x04000000) != 0:  # CLONE_NEWUTS
                raise OSError(ctypes.get_errno(), "unshare")
            socket.sethostname("other.example")

        self.goes_on("python3", preexec_fn=other_host)
        self.goes_on(preexec_fn=other_host)
        self.assert_self_contained()
        self.output()

    def test_packing_beside_a_keeper_is_refused(self):
        self.begin()
        self.wait_epoch()
        self.assert_refused(self.recover("--pack", str(self.directory / "packed")), "PH_EBUSY")
        self.assertFalse((self.directory / "packed").exists())

    def installation(self, to):
        """pyheap as it is installed, under `to`."""
        built = pathlib.Path(self.commands.recover).parent.parent
        for part in ("bin", "lib/pyheap", "libexec/pyheap"):
            shutil.copytree(built / part, to / part)
        return to

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_another_user_with_the_same_rights(self):
        self.killed_run(self.own_python())
        user = pwd.getpwnam("nobody")
        before = self.commands.newest(self.pool)
        own = self.installation(self.directory / "own")
        shutil.rmtree(self.directory / "tree")
        for path in (self.directory, self.out, self.err, self.pool):
            os.chown(path, user.pw_uid, user.pw_gid)
        keeper, target = self.start([str(own / "bin/pyheap-recover"), self.pool],
                                    user=user.pw_uid, group=user.pw_gid, extra_groups=[])
        self.wait_printed(f"\n{before + 20}\n")
        self.assertEqual(os.stat(f"/proc/{target.pid}").st_uid, user.pw_uid)
        self.kill_program(keeper, target)
        self.assertRegex(self.err.read_text(), "copies are used: .*python3")
        os.chown(self.pool, 0, 0)  # ours again, to look at it
        self.assertGreater(self.commands.newest(self.pool), before + 15)
        self.assert_self_contained()
        self.output()

    def root_directory(self):
        """A root directory with pyheap and what it links to, and neither Python nor locales."""
        root = self.directory / "root"
        own = self.installation(root / "opt")
        done = subprocess.run(["ldd", own / "bin/pyheap-recover"], capture_output=True,
                              text=True, check=True)
        for path in set(re.findall(r"(/\S+) \(0x", done.stdout)):
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path[1:])  # another modification time
        for name in ("proc", "dev", "tmp", str(self.directory)[1:]):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in ("null", "urandom"):
            node = root / "dev" / name
            node.touch()
            self.mount("--bind", f"/dev/{name}", node)
        self.mount("-t", "proc", "proc", root / "proc")
        return root

    def mount(self, *arguments):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"mounting is not allowed here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", arguments[-1]], check=True)

    @unittest.skipUnless(os.geteuid() == 0, "only root can change the root directory")
    def test_a_root_directory_without_python(self):
        self.killed_run(self.own_python())
        root = self.root_directory()
        inside = root / self.pool[1:]
        packed = self.finish([self.commands.recover, "--pack", str(inside), self.pool])
        self.assert_ended(packed)
        self.pool = str(inside)
        os.rename(self.directory / "tree", self.directory / "away")
        argv = ["chroot", str(root), "/opt/bin/pyheap-recover",
                "/" + str(inside.relative_to(root))]
        said = self.goes_on("python3", argv=argv)
        self.assertNotIn("libc.so", said, "libc is the same, but for its time")
        self.goes_on(argv=argv)
        self.assert_self_contained()

    @unittest.skipUnless(os.geteuid() == 0, "only root can mount a small file system")
    def test_a_disk_too_small_for_the_copies(self):
        small = self.directory / "small"
        small.mkdir()
        self.mount("-t", "tmpfs", "-o", "size=48m", "tmpfs", small)
        self.pool = str(small / "test.pm")
        keeper, target = self.begin(pool=self.pool)
        self.wait_until(lambda: "not being stored" in self.err.read_text(), "it says so")
        self.wait_epoch(self.commands.newest(self.pool) + 5)
        self.kill_program(keeper, target)
        self.assertEqual(self.err.read_text().count("not being stored"), 1)
        self.assertTrue(self.listed().startswith("no"))
        self.goes_on_without_copies()

    def goes_on_without_copies(self):
        keeper, target = self.start([self.commands.recover, self.pool])
        self.wait_epoch(self.commands.newest(self.pool) + 5)
        self.kill_program(keeper, target)
        self.output()
