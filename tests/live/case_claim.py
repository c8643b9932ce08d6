# SPDX-License-Identifier: MIT
"""case_claim - until its first epoch a run has only the name of its pool: ends, kills, rivals, full disks"""
import os
import random
import signal
import subprocess

from case import COUNTING, Case
from commands import PATIENCE

# Says that it is up, waits for a file called "go", then takes its epochs.
WAITING = """
    import os, time
    import pyheap
    print("up", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.005)
    for step in range(3):
        pyheap.epoch(wait=True)
    print("done", flush=True)
"""


class Claims(Case):
    def beside(self):
        """What lies in the directory, but for the test's own files."""
        ours = {"script.py", "out.txt", "err.txt", "go", "small"}
        return sorted(set(os.listdir(self.directory)) - ours)

    def waiting(self, pool=None):
        started = self.start(self.argv(WAITING, pool=pool))
        self.wait_printed("up")
        return started

    def go(self):
        (self.directory / "go").touch()

    def assert_no_epochs(self):
        """Every command says so, in its own way."""
        done = self.recover("--list")
        self.assert_ended(done)
        first, heading = done.stdout.splitlines()
        self.assertIn("script.py, not finished", first)
        self.assertEqual(heading.split(), ["epoch", "time", "pages", "bytes", "label"])
        for options in (["--verify"], [], ["--epoch", "1"], ["--pack", "copy.pm"]):
            self.assert_refused(self.recover(*options), "PH_ENOEPOCH")


class NoEpoch(Claims):
    def test_a_program_without_epochs_leaves_no_file(self):
        for text, status in (("pass", 0), ("raise SystemExit(3)", 3)):
            self.assertEqual(self.run_program(text).returncode, status)
            self.assertEqual(self.beside(), [])

    def test_its_pool_is_listed_while_it_runs(self):
        keeper, _ = self.waiting()
        self.assertEqual(self.beside(), ["test.pm"])
        self.assertEqual(self.commands.list(self.pool)[:2], (0, {}))
        self.go()
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assertEqual(self.beside(), ["test.pm"])
        self.assert_refused(self.recover(), "PH_EFINISHED")

    def test_an_empty_file_may_be_taken(self):
        """A power cut may leave one; so does mktemp."""
        open(self.pool, "wb").close()
        self.assert_ended(self.run_program(COUNTING, 2))


class KilledKeeper(Claims):
    def test_before_the_first_epoch(self):
        keeper, target = self.waiting()
        keeper.kill()
        keeper.wait()
        self.assertEqual(self.beside(), ["test.pm"])
        self.assert_no_epochs()
        target.signal(signal.SIGKILL)
        target.wait_dead(PATIENCE)
        self.assert_no_epochs()
        self.assert_ended(self.run_program(COUNTING, 2))
        self.assertEqual(self.beside(), ["test.pm"])

    def test_at_any_time_around_the_first_epoch(self):
        rng = random.Random(5)
        for _ in range(25):
            self.out.write_text("")
            keeper, target = self.waiting()
            self.go()
            try:
                keeper.wait(rng.uniform(0, 0.12))
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()
            target.signal(signal.SIGKILL)
            target.wait_dead(PATIENCE)
            self.answers()
            os.unlink(self.directory / "go")

    def answers(self):
        """Whatever was left, every command has one clear answer."""
        status, epochs, text = self.commands.list(self.pool)
        self.assertEqual(status, 0, text)
        if epochs:
            self.assertIsNone(self.commands.verify(self.pool))
            done = self.recover()
            if done.returncode != 0:
                self.assert_refused(done, "PH_EFINISHED")
        else:
            self.assert_no_epochs()
        self.assert_ended(self.run_program("pass"))
        self.assertEqual(self.beside(), [])


class Rivals(Claims):
    def test_a_second_run_is_refused_before_the_first_epoch_too(self):
        keeper, _ = self.waiting()
        for options in ([], ["--fresh"]):
            done = self.finish([self.commands.run, "--pool", self.pool, *options, "-c", "pass"])
            self.assert_refused(done, "PH_EBUSY", "in use")
        self.assert_refused(self.recover(), "PH_EBUSY", "in use")
        self.go()
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assert_refused(self.recover(), "PH_EFINISHED")

    def test_of_many_that_start_together_one_runs(self):
        self.assert_ended(self.run_program(COUNTING, 2))  # to be cleared away, by one of them
        argv = self.argv(WAITING)
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            rivals = [subprocess.Popen(argv, cwd=self.directory, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=err) for _ in range(8)]
        self.addCleanup(lambda: [rival.kill() for rival in rivals])
        self.addCleanup(self.go)
        self.wait_until(lambda: sum(r.poll() is None for r in rivals) <= 1, "one is left")
        self.wait_printed("up")
        self.go()
        statuses = sorted(rival.wait(PATIENCE) for rival in rivals)
        self.assertEqual(statuses, [0] + [self.STATUS["PH_EBUSY"]] * 7, self.err.read_text())
        self.assertEqual(self.out.read_text().split(), ["up", "done"])
        self.assert_refused(self.recover(), "PH_EFINISHED")
        self.assertEqual(self.beside(), ["test.pm"])

    def test_a_name_that_another_file_has_taken_is_left_to_it(self):
        keeper, _ = self.start(self.argv(WAITING))
        self.wait_printed("up")
        os.rename(self.pool, self.directory / "away.pm")
        with open(self.pool, "w", encoding="ascii") as file:
            file.write("another's")
        self.go()
        self.assertEqual(keeper.wait(PATIENCE), 1)
        self.assertIn("another file has this name now", self.err.read_text())
        with open(self.pool, encoding="ascii") as file:
            self.assertEqual(file.read(), "another's")


class NoSpace(Claims):
    def setUp(self):
        super().setUp()
        self.small = self.small_file_system("64m")

    def fill(self):
        with open(self.small / "filler", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def test_at_the_start_it_is_said_before_the_program_runs(self):
        self.fill()
        done = self.finish(self.argv("print('it ran')", pool=str(self.small / "test.pm")))
        self.assert_refused(done, "PH_EFULL", "space")
        self.assertEqual(done.stdout, "")
        self.assertEqual(os.listdir(self.small), ["filler"])

    def test_at_the_first_epoch_it_fails_and_a_later_one_makes_the_pool(self):
        pool = str(self.small / "test.pm")
        keeper, target = self.start(self.argv("""
            import os, time
            import pyheap
            print("up", flush=True)
            while not os.path.exists("go"):
                time.sleep(0.005)
            for _ in range(3):
                try:
                    pyheap.epoch(wait=True)
                except pyheap.PoolFullError as error:
                    print("failed", "free disk space" in str(error), flush=True)
            while os.path.exists("go"):
                time.sleep(0.005)
            print("good", pyheap.epoch(wait=True), flush=True)
            if not pyheap.status()["recoveries"]:
                time.sleep(600)
        """, pool=pool))
        self.wait_printed("up")
        self.fill()
        self.go()
        self.wait_until(lambda: self.out.read_text().count("failed True") == 3, "three failures")
        self.assertEqual(sorted(os.listdir(self.small)), ["filler", "test.pm"])
        self.assertEqual(self.commands.list(pool)[:2], (0, {}))
        os.unlink(self.small / "filler")
        os.unlink(self.directory / "go")
        self.wait_printed("good")
        number = int(self.out.read_text().split()[-1])
        self.assertEqual(self.commands.newest(pool), number)
        target.signal(signal.SIGKILL)
        self.assert_killed(keeper.wait(PATIENCE), signal.SIGKILL)
        self.assertIsNone(self.commands.verify(pool))
        self.assert_ended(self.recover(pool=pool))
