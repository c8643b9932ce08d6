# SPDX-License-Identifier: MIT
"""case_pool - pools and files that cannot be used are refused with a clear message, unharmed"""
import os
import pwd
import resource
import shutil
import signal
import subprocess
import unittest

import interpreters
from case import COUNTING, MARKER, Case, offsets_in
from commands import PATIENCE
from denied import denying

SUPERBLOCK_MAGIC = (0x4B4C425045485950).to_bytes(8, "little")  # allocator/pool_format.h


class Unfinished(Case):
    """A pool with a run that was killed."""

    def test_run_refuses_and_names_both_ways_on(self):
        self.killed()
        before = self.commands.newest(self.pool)
        self.assert_refused(self.run_program(COUNTING, 3), "PH_EUNFINISHED",
                            "pyheap-recover", "--fresh", "test.pm")
        self.assertEqual(self.commands.newest(self.pool), before, "the refusal changed it")
        self.assert_ended(self.recover())

    def test_fresh_discards_it(self):
        self.killed()
        done = self.run_program(COUNTING, 3, options=["--fresh"])
        self.assert_ended(done)
        self.assertEqual(done.stdout.split()[:4], ["0", "1", "2", "done"])
        self.assert_refused(self.recover(), "PH_EFINISHED")

    def test_one_command_starts_goes_on_and_ends(self):
        job = ["--resume", "--every", "10m", "--staging", "8M"]
        self.killed(200, options=job)
        other = self.run_program(COUNTING, 3, options=job)
        self.assert_refused(other, "PH_EUNFINISHED", "another command", "script.py 200")
        keeper, _ = self.start(self.argv(COUNTING, 200, options=job))
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assertEqual(self.out.read_text().split()[:201], [*map(str, range(200)), "done"])
        nothing = self.run_program(COUNTING, 200, options=job)
        self.assert_ended(nothing)
        self.assertEqual(nothing.stdout, "")
        self.assertIn("has finished", nothing.stderr)
        again = self.run_program(COUNTING, 3, options=job)
        self.assert_ended(again)
        self.assertEqual(again.stdout.split()[:4], ["0", "1", "2", "done"])
        self.assert_refused(self.run_program(COUNTING, 3, options=[*job, "--fresh"]), "PH_EUSAGE",
                            "--resume")

    def test_fresh_refuses_before_it_discards(self):
        self.killed()
        before = self.commands.newest(self.pool)
        limits = {"PH_EPOOLSIZE": (resource.RLIMIT_FSIZE, 2 << 30),
                  "PH_ENOMEM": (resource.RLIMIT_AS, 1 << 30)}
        for error, limit in limits.items():
            done = self.run_program(COUNTING, 3, options=["--fresh", "--pool-size", "64G"],
                                    preexec_fn=lambda limit=limit:
                                    resource.setrlimit(limit[0], (limit[1], limit[1])))
            self.assert_refused(done, error, "ulimit")
        for call in "memfd_create", "socketpair":
            done = self.run_program(COUNTING, 3, options=["--fresh"], preexec_fn=denying(call))
            self.assert_refused(done, "PH_EKERNEL", call)
        self.assertEqual(self.commands.newest(self.pool), before)
        self.assert_ended(self.recover())

    def test_killed_before_the_first_epoch_there_is_nothing_to_recover(self):
        keeper, target = self.start(self.argv(
            "import time\nprint('up', flush=True)\ntime.sleep(600)\n"))
        self.wait_printed("up")
        target.signal(signal.SIGKILL)
        self.assert_killed(keeper.wait(PATIENCE), signal.SIGKILL)
        self.assertIn("nothing to recover", self.err.read_text())
        self.assertFalse(os.path.exists(self.pool))
        # Nothing would be lost, so nothing stands in the way of starting again.
        self.assert_ended(self.run_program(COUNTING, 2))

    def test_an_older_epoch_can_be_recovered(self):
        self.killed(steps=100, epochs=5)
        _, epochs, _ = self.commands.list(self.pool)
        self.assertGreaterEqual(len(epochs), 2, "at least the last two are recoverable")
        older = sorted(epochs)[-2]
        done = self.recover("--epoch", str(older))
        self.assert_ended(done)
        # Epoch n is taken after step n - 1 was printed.
        self.assertEqual(done.stdout.split()[:2], [str(older), str(older + 1)])
        self.assertIn("done True", done.stdout)

    def test_an_epoch_that_is_not_there(self):
        self.killed()
        self.assert_refused(self.recover("--epoch", "999999"), "PH_ENOEPOCH", "--list",
                            "(epoch 999999)")

    def test_lost_epochs_are_not_invented(self):
        self.killed()
        newest = self.commands.newest(self.pool)
        done = self.recover()
        self.assert_ended(done)
        self.assertEqual(done.stdout.split()[0], str(newest))


class Finished(Case):
    """A pool whose program has ended."""

    def test_recovering_it_says_so(self):
        self.assert_ended(self.run_program(COUNTING, 3))
        self.assert_refused(self.recover(), "PH_EFINISHED", "finished")

    def test_running_again_needs_no_option(self):
        self.assert_ended(self.run_program(COUNTING, 3))
        self.assert_ended(self.run_program(COUNTING, 4))


class InUse(Case):
    """A pool that a keeper has open, or whose program lives."""

    def test_a_second_keeper_is_refused(self):
        keeper, _ = self.start(self.argv(COUNTING, 100_000))
        self.wait_epoch()
        other = str(self.directory / "other.py")
        shutil.copy(self.directory / "script.py", other)
        for options in ([], ["--fresh"]):
            done = self.finish([self.commands.run, "--pool", self.pool, *options, other, "3"])
            self.assert_refused(done, "PH_EBUSY", "in use")
        done = self.recover()
        self.assert_refused(done, "PH_EBUSY", "in use")
        before = self.commands.newest(self.pool)
        self.wait_epoch(before + 2)  # the first one does not mind
        self.assertIsNone(keeper.poll())

    def test_recovery_is_refused_while_the_program_lives_without_its_keeper(self):
        keeper, target = self.start(self.argv("""
            import time, pyheap
            pyheap.epoch(wait=True)
            print("up", flush=True)
            time.sleep(600)
        """))
        self.wait_printed("up")
        keeper.kill()
        keeper.wait()
        self.assert_refused(self.recover(), "PH_ERUNNING", "running")
        target.signal(signal.SIGKILL)
        target.wait_dead(PATIENCE)
        self.assert_ended(self.recover("--list"))


    def test_a_pool_that_is_renamed_meanwhile(self):
        """What is said names it as it is called by then, and what was cut off goes with it."""
        text = """
            import os, time, pyheap
            file = open("file", "w")
            file.write("0123456789")
            file.flush()
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                file.truncate(3)
                print("cut", flush=True)
                time.sleep(600)
            file.write("!")
            print("recovered", flush=True)
            time.sleep(600 if os.path.exists("wait") else 0)
        """
        (self.directory / "wait").touch()
        argv, name = self.argv(text), "test.pm"
        for new, printed in (("first.pm", "cut"), ("second.pm", "recovered")):
            keeper, target = self.start(argv)
            self.wait_printed(printed)
            (self.directory / name).rename(self.directory / new)
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            self.assertIn(f"pyheap-recover {self.directory / new}\n", self.err.read_text())
            self.assertFalse((self.directory / f"{name}.undo").exists())
            name, argv = new, [self.commands.recover, str(self.directory / new)]
        (self.directory / "wait").unlink()
        self.assert_ended(self.finish(argv))
        self.assertEqual((self.directory / "file").read_text(), "0123456789!")
        self.assertEqual([path.name for path in self.directory.glob("*.pm*")], ["second.pm"])

    CUTTING = """
        import os, sys, time, pyheap
        file = open(sys.argv[1], "w")
        file.write("0123456789")
        file.flush()
        pyheap.epoch(wait=True)
        if not pyheap.status()["recoveries"]:
            print(sys.argv[1], flush=True)
            while not os.path.exists(sys.argv[1] + ".go"):
                time.sleep(0.01)
            file.truncate(3)
            print("cut", sys.argv[1], flush=True)
            time.sleep(600)
        print("recovered")
    """

    def cutting(self, name, cut):
        """A program whose pool has been renamed, from test.pm."""
        if cut:
            (self.directory / f"{name}.go").touch()
        started = self.start(self.argv(self.CUTTING, name))
        self.wait_printed(f"cut {name}" if cut else name)
        (self.directory / "test.pm").rename(self.directory / f"{name}.pm")
        return started

    def test_what_a_renamed_pool_needs_is_kept_from_a_new_run(self):
        keeper, target = self.cutting("one", cut=True)
        for options in (), ("--fresh",):
            done = self.run_program(self.CUTTING, "two", options=options)
            self.assert_refused(done, "PH_EUSAGE", "test.pm.undo", "another pool")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.assertIn("recovered", self.recover(pool=str(self.directory / "one.pm")).stdout)

    def test_what_a_renamed_pool_needs_has_to_be_renamed_too(self):
        """The keeper, which would have done that, was killed as well."""
        keeper, target = self.cutting("one", cut=True)
        keeper.kill()
        keeper.wait()
        target.signal(signal.SIGKILL)
        target.wait_dead(PATIENCE)
        pool = str(self.directory / "one.pm")
        self.assert_refused(self.recover(pool=pool), "PH_EUSAGE", "test.pm.undo", "one.pm.undo")
        (self.directory / "test.pm.undo").rename(self.directory / "one.pm.undo")
        self.assertIn("recovered", self.recover(pool=pool).stdout)

    def test_what_a_new_run_needs_is_kept_from_a_renamed_pool(self):
        """Whose program finds the directory taken, and says so."""
        keeper, target = self.cutting("one", cut=False)
        (self.directory / "two.go").touch()
        keeper2, target2 = self.start(self.argv(self.CUTTING, "two"))
        self.wait_printed("cut two")
        (self.directory / "one.go").touch()
        self.wait_printed("cut one")
        self.assertIn("are another's by now", self.err.read_text())
        for program, its_keeper in (target, keeper), (target2, keeper2):
            program.signal(signal.SIGKILL)
            its_keeper.wait(PATIENCE)
        self.assert_refused(self.recover(pool=str(self.directory / "one.pm")), "PH_EFILES", "one", "shorter")
        self.assertIn("recovered", self.recover().stdout)


class Damaged(Case):
    """Files that are no pool, or not a whole one."""

    def refuse(self, path, error, *words):
        self.assert_refused(self.recover(pool=path), error, *words)
        for option in ("--list", "--verify"):
            self.assert_refused(self.recover(option, pool=path), error)

    def write(self, content):
        path = self.directory / "wrong.pm"
        path.write_bytes(content)
        path.chmod(0o600)
        return str(path)

    def test_no_such_file(self):
        self.refuse(str(self.directory / "none.pm"), "PH_ENOENT", "none.pm")

    def test_a_directory(self):
        (self.directory / "dir.pm").mkdir(mode=0o700)
        self.refuse(str(self.directory / "dir.pm"), "PH_ENOTPOOL")

    def test_an_empty_file(self):
        self.refuse(self.write(b""), "PH_ENOTPOOL")

    def test_a_text_file(self):
        self.refuse(self.write(b"print('not a pool')\n" * 1000), "PH_ENOTPOOL", "not a pyheap")

    def test_random_bytes(self):
        self.refuse(self.write(os.urandom(1 << 20)), "PH_ENOTPOOL")

    def test_a_pool_of_another_program(self):
        if not shutil.which("pmempool"):
            self.skipTest("pmempool is not installed")
        path = str(self.directory / "foreign.pm")
        subprocess.run(["pmempool", "create", "--layout", "another", "-s", "16M", "obj", path],
                       check=True, stdout=subprocess.DEVNULL)
        os.chmod(path, 0o600)
        self.refuse(path, "PH_ENOTPOOL", "not a pyheap")

    def test_a_truncated_pool(self):
        self.killed()
        os.truncate(self.pool, os.path.getsize(self.pool) // 2)
        self.refuse(self.pool, "PH_ETRUNC", "truncated")

    def test_a_pool_cut_to_a_few_bytes(self):
        self.killed()
        os.truncate(self.pool, 10_000)
        done = self.recover()
        self.assertIn(done.returncode, (self.STATUS["PH_ETRUNC"], self.STATUS["PH_ENOTPOOL"]),
                      done.stderr)

    def test_a_pool_of_a_newer_version(self):
        self.killed()
        with open(self.pool, "r+b") as file:
            for at in offsets_in(self.pool, SUPERBLOCK_MAGIC):
                os.pwrite(file.fileno(), (1000).to_bytes(4, "little"), at + 8)
        self.refuse(self.pool, "PH_ENEWER", "newer")

    def test_a_damaged_page_is_found_before_anything_is_started(self):
        self.killed()
        self.assertIsNone(self.commands.verify(self.pool))
        found = offsets_in(self.pool, MARKER * 3)
        self.assertTrue(found, "the program's data is not in the pool")
        with open(self.pool, "r+b") as file:
            for at in found:
                os.pwrite(file.fileno(), b"A", at)
        done = self.recover("--verify")
        self.assertEqual(done.returncode, self.STATUS["PH_ECORRUPT"], done.stderr)
        _, epochs, _ = self.commands.list(self.pool)
        lines = done.stderr.splitlines()  # one for each epoch, and there may be many
        self.assertTrue(lines and all("damaged" in line for line in lines), done.stderr)
        self.assertLessEqual(len(lines), len(epochs))
        before = self.out.read_text()
        done = self.recover()
        self.assert_refused(done, "PH_ECORRUPT", "damaged")
        self.assertLessEqual(len(done.stderr.splitlines()), 2, done.stderr)
        self.assertEqual(self.out.read_text(), before)

    def test_the_newest_epoch_is_damaged(self):
        """The one before is gone on from, and named."""
        text = """
            import os, pyheap
            data = [bytearray(100000) for _ in range(20)]
            for n in 1, 2:
                if n == 2:
                    data[7][:] = "lla fo tsewen ".encode()[::-1] * 6000
                pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                os.kill(os.getpid(), 9)
            print(n)
        """
        self.assert_killed(self.run_program(text).returncode, signal.SIGKILL)
        found = offsets_in(self.pool, b" newest of all")
        self.assertGreater(len(found), 1000)
        with open(self.pool, "r+b") as file:
            for at in found:
                os.pwrite(file.fileno(), b"N", at)
        done = self.recover()
        self.assert_ended(done)
        self.assertEqual(done.stdout, "2\n")
        for words in "the newest epoch is damaged", "going on from epoch 1,":
            self.assertIn(words, done.stderr)

    def test_a_failed_start_leaves_no_pool(self):
        self.finish([self.commands.run, "--pool", self.pool, "--python", self.python,
                     str(self.directory / "none.py")])
        self.assertFalse(os.path.exists(self.pool))


class Rights(Case):
    """A pool is executed on recovery, so it must be its user's alone."""

    def test_others_can_write(self):
        self.killed()
        os.chmod(self.pool, 0o622)
        self.assert_refused(self.recover(), "PH_EOWNER", "600")

    def test_a_new_pool_is_its_users_alone(self):
        self.killed()
        self.assertEqual(os.stat(self.pool).st_mode & 0o777, 0o600)

    def test_a_symbolic_link(self):
        self.killed()
        link = str(self.directory / "link.pm")
        os.symlink(self.pool, link)
        self.assert_refused(self.recover(pool=link), "PH_ENOTPOOL", "name the .pm file")

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a file away")
    def test_another_users_pool(self):
        self.killed()
        os.chown(self.pool, pwd.getpwnam("nobody").pw_uid, -1)
        self.assert_refused(self.recover(), "PH_EOWNER", "user")

    @unittest.skipIf(os.geteuid() == 0, "root may read and write everything")
    def test_no_right_to_read(self):
        self.killed()
        os.chmod(self.pool, 0)
        self.assert_refused(self.recover(), "PH_EACCES", "right")

    @unittest.skipIf(os.geteuid() == 0, "root may read and write everything")
    def test_no_right_to_create(self):
        closed = self.directory / "closed"
        closed.mkdir(mode=0o500)
        done = self.finish(self.argv(COUNTING, 3, pool=str(closed / "test.pm")))
        self.assert_refused(done, "PH_EACCES", "right")


    def test_a_file_system_that_is_read_only(self):
        """Its pools can be looked at and copied; the copy goes on."""
        small = self.small_file_system("300m")
        self.killed()
        pool = str(small / "test.pm")
        self.assert_ended(self.finish([self.commands.recover, "--pack", pool, self.pool]))
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        for done in (self.recover(pool=pool),
                     self.finish(self.argv(COUNTING, 3, pool=str(small / "other.pm"))),
                     self.finish(self.argv(COUNTING, 3, pool=pool, options=["--fresh"]))):
            self.assert_refused(done, "PH_EROFS", "mounted read-only", "--pool", "cp --sparse")
        self.assertIsNone(self.commands.verify(pool))
        os.unlink(self.pool)
        subprocess.run(["cp", "--sparse=always", pool, self.pool], check=True)
        self.assert_ended(self.recover())


class FullDisk(Case):
    """A small file system of its own."""

    def test_the_program_goes_on_and_the_last_epoch_stays(self):
        small = self.small_file_system("300m")
        pool = str(small / "test.pm")
        keeper, target = self.start(self.argv("""
            import os, time, pyheap
            hoard, failed, good = [], 0, 0
            pyheap.epoch(wait=True)
            while not failed and len(hoard) < 200:
                hoard.append(os.urandom(4 << 20))
                try:
                    good = pyheap.epoch(wait=True)
                except pyheap.PoolFullError as error:
                    assert "space" in str(error), error
                    failed += 1
            print("full", failed, pyheap.status()["durable"] == good, good, flush=True)
            hoard.clear()
            time.sleep(600)
        """, pool=pool))
        self.wait_printed("full")
        words = self.out.read_text().split()
        self.assertEqual(words[:3], ["full", "1", "True"])
        self.assertIsNone(keeper.poll(), "the keeper gave up")
        self.assertEqual(self.commands.newest(pool), int(words[3]))
        target.signal(signal.SIGKILL)
        self.assert_killed(keeper.wait(PATIENCE), signal.SIGKILL)
        self.assertIsNone(self.commands.verify(pool))

        # The last epoch comes back, and finds the disk as full as it was.
        self.out.write_text("")
        keeper, target = self.start([self.commands.recover, pool])
        self.wait_printed("full")
        self.assertEqual(self.out.read_text().split()[:3], ["full", "1", "True"])


class Command(Case):
    """The commands themselves."""

    def test_wrong_use(self):
        for argv in ([self.commands.run], [self.commands.recover],
                     [self.commands.run, "--no-such-option", "x.py"],
                     [self.commands.recover, "--no-such-option", "x.pm"]):
            self.assert_refused(self.finish(argv), "PH_EUSAGE", "--help")

    def test_names_and_sizes_that_cannot_be(self):
        for options, word in ((["--pool", "x" * 300 + ".pm"], "xxx"),
                              (["--pool-size", "1M"], "--pool-size"),
                              (["--pool-size", "4000P"], "--pool-size")):
            done = self.finish([self.commands.run, *options, "--python", self.python,
                                self.script(COUNTING), "1"])
            self.assert_refused(done, "PH_EUSAGE", word)
        self.assert_refused(self.recover(pool="x" * 300), "PH_EUSAGE", "xxx")

    def test_help(self):
        for command, words in ((self.commands.run, ["--pool", "--fresh", "--python"]),
                               (self.commands.recover, ["--list", "--verify", "--epoch"])):
            done = self.finish([command, "--help"])
            self.assert_ended(done)
            for word in words:
                self.assertIn(word, done.stdout)

    def test_a_missing_script(self):
        done = self.finish([self.commands.run, "--python", self.python, "none.py"])
        self.assert_refused(done, "PH_ENOENT", "none.py")

    def test_a_missing_interpreter(self):
        script = self.script(COUNTING)
        done = self.finish([self.commands.run, "--python", "/none/python3", script, "3"])
        self.assert_refused(done, "PH_EPYTHON", "/none/python3")

    def test_something_else_as_interpreter(self):
        script = self.script(COUNTING)
        for wrong in ("/bin/true", "/etc/passwd", "/"):
            done = self.finish([self.commands.run, "--pool", self.pool, "--python", wrong,
                                script, "3"])
            self.assert_refused(done, "PH_EPYTHON", "python")

    def test_an_interpreter_that_is_too_old(self):
        old = interpreters.pyenv("3.8") or interpreters.pyenv("2.7")
        if not old:
            self.skipTest("no Python older than 3.9 here")
        script = self.script("print('it ran without pyheap')")
        done = self.finish([self.commands.run, "--pool", self.pool, "--python", old, script])
        self.assert_refused(done, "PH_EPYTHON", "3.9")

    def test_the_pools_default_name_is_the_scripts(self):
        self.script(COUNTING, "counting.py")
        self.assert_ended(self.finish([self.commands.run, "--python", self.python,
                                       "counting.py", "2"]))
        self.assert_refused(self.recover(pool=str(self.directory / "counting.pm")),
                            "PH_EFINISHED")

    def test_list_shows_number_time_label_pages_and_bytes(self):
        self.killed()
        status, epochs, text = self.commands.list(self.pool)
        self.assertEqual(status, 0, text)
        for number, line in epochs.items():
            self.assertIn(f"step {number - 1}", line)
            self.assertRegex(line, r"\d\d:\d\d:\d\d", "no time of day")
            self.assertGreaterEqual(len(line.split()), 5, line)

    def test_listing_and_verifying_change_nothing(self):
        self.killed()
        before = os.stat(self.pool)
        self.assertEqual(self.commands.list(self.pool)[0], 0)
        self.assertIsNone(self.commands.verify(self.pool))
        after = os.stat(self.pool)
        self.assertEqual((before.st_mtime_ns, before.st_blocks),
                         (after.st_mtime_ns, after.st_blocks))
