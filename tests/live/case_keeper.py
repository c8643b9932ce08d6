# SPDX-License-Identifier: MIT
"""case_keeper - pyheap-run and pyheap-recover as parents of the program"""
import os
import pty
import select
import signal
import subprocess

from case import COUNTING, Case
from commands import PATIENCE
from processes import is_dead


class Ends(Case):
    """How the program ended is how the keeper ends."""

    def test_exit_code(self):
        for code in (0, 1, 3, 42, 255):
            done = self.run_program(f"import sys, pyheap; pyheap.epoch(); sys.exit({code})",
                                    options=["--fresh"])
            self.assert_ended(done, code)
            self.assertEqual("pyheap-recover" in done.stderr, code != 0, done.stderr)

    def test_exit_code_after_recovery(self):
        keeper, target = self.start(self.argv(COUNTING + "\n    sys.exit(3)", 50))
        self.wait_epoch()
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.assert_ended(self.recover(), 3)

    def test_an_exception_nobody_handles(self):
        done = self.run_program("import pyheap\npyheap.epoch()\nraise ValueError('its own')")
        self.assert_ended(done, 1)
        self.assertIn("ValueError: its own", done.stderr)

    def test_signals_that_kill_it(self):
        for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGKILL):
            done = self.run_program(f"""
                import os, resource, pyheap
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                pyheap.epoch(wait=True)
                os.kill(os.getpid(), {int(number)})
            """, options=["--fresh"])
            self.assert_killed(done.returncode, number)

    def test_it_says_how_the_program_died_and_how_to_go_on(self):
        self.assert_killed(self.killed(), signal.SIGKILL)
        text = self.err.read_text()
        newest = self.commands.newest(self.pool)
        self.assertEqual(len(text.splitlines()), 1, text)
        for word in ("SIGKILL", str(newest), "pyheap-recover", "test.pm"):
            self.assertIn(word.lower(), text.lower().replace("signal 9", "sigkill"))

    def test_it_says_nothing_when_the_program_ends_well(self):
        done = self.run_program(COUNTING, 3)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Signals(Case):
    """Signals to the keeper are meant for the program."""

    HANDLING = """
        import signal, sys, time, pyheap
        def handler(number, frame):
            print("got", signal.Signals(number).name, flush=True)
            if number == signal.SIGTERM:
                sys.exit(7)
        for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2"):
            signal.signal(getattr(signal, name), handler)
        pyheap.epoch(wait=True)
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """

    def send_all(self, keeper):
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            keeper.send_signal(number)
            self.wait_printed(f"got {number.name}")
        keeper.send_signal(signal.SIGTERM)
        self.assertEqual(keeper.wait(PATIENCE), 7)

    def test_they_reach_its_handlers(self):
        keeper, _ = self.start(self.argv(self.HANDLING))
        self.wait_printed("ready")
        self.send_all(keeper)

    def test_they_reach_its_handlers_after_recovery(self):
        keeper, target = self.start(self.argv(self.HANDLING))
        self.wait_printed("ready")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.out.write_text("")
        keeper, _ = self.start([self.commands.recover, self.pool])
        self.wait_printed("ready")
        self.send_all(keeper)

    def test_a_signal_without_handler_ends_both(self):
        keeper, target = self.start(self.argv(COUNTING, 100_000))
        self.wait_epoch()
        keeper.send_signal(signal.SIGTERM)
        self.assert_killed(keeper.wait(PATIENCE), signal.SIGTERM)
        self.assertTrue(is_dead(target.pid))

    def test_an_interrupt_from_the_terminal_reaches_the_program_once(self):
        # A terminal sends SIGINT to the keeper and the program.
        argv = self.argv("""
            import time, pyheap
            pyheap.epoch(wait=True)
            try:
                print("ready", flush=True)  # from here on the interrupt may come
                for _ in range(6000):  # one that comes just before a sleep is seen after it
                    time.sleep(0.1)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            time.sleep(0.3)
            print("done", flush=True)
        """)
        pid, terminal = pty.fork()
        if pid == 0:
            os.closerange(3, 1024)
            os.execv(argv[0], argv)
        self.addCleanup(os.close, terminal)
        shown, sent = b"", False
        while b"done" not in shown and select.select([terminal], [], [], PATIENCE)[0]:
            try:
                shown += os.read(terminal, 1000)
            except OSError:  # nobody has the terminal open any more
                break
            if b"ready\r\n" in shown and not sent:
                os.write(terminal, b"\x03")
                sent = True
        else:
            if b"done" not in shown:
                os.killpg(pid, signal.SIGKILL)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, shown)
        self.assertEqual(shown.replace(b"^C", b"").split(), [b"ready", b"interrupted", b"done"])


class WithoutKeeper(Case):
    """The keeper can be killed too."""

    def test_the_program_goes_on_and_epoch_raises(self):
        keeper, target = self.start(self.argv("""
            import sys, time, pyheap
            number = pyheap.epoch(wait=True)
            print("ready", flush=True)
            sys.stdin.close()
            while True:
                try:
                    number = pyheap.epoch("more")
                    time.sleep(0.005)
                except pyheap.KeeperError as error:
                    assert isinstance(error, pyheap.Error) and "keeper" in str(error)
                    break
            try: # what was durable before still is
                assert pyheap.sync() == number
            except pyheap.KeeperError:
                pass
            for call in (pyheap.epoch, lambda: pyheap.epoch(wait=True)):
                try:
                    call()
                except pyheap.KeeperError:
                    continue
                raise SystemExit("no KeeperError")
            print("sum", sum(range(1000)), flush=True)
        """))
        self.wait_printed("ready")
        keeper.kill()
        keeper.wait()
        self.wait_printed("sum 499500")
        target.wait_dead(PATIENCE)
        # What was durable is recoverable, and this time the keeper lives.
        self.assertGreater(self.commands.newest(self.pool), 0)
        self.assertIsNone(self.commands.verify(self.pool))

    def test_both_killed_the_last_durable_epoch_comes_back(self):
        keeper, target = self.start(self.argv(COUNTING, 200))
        self.wait_epoch(3)
        keeper.kill()
        target.signal(signal.SIGKILL)
        keeper.wait()
        target.wait_dead(PATIENCE)
        newest = self.commands.newest(self.pool)
        done = self.recover()
        self.assert_ended(done)
        self.assertEqual(done.stdout.split()[0], str(newest))


class Surroundings(Case):
    """What the program sees of pyheap: next to nothing."""

    def test_environment_and_descriptors(self):
        done = self.run_program("""
            import os, sys, pyheap
            assert pyheap.active
            bad = [n for n in os.environ if n in ("LD_PRELOAD", "PYTHONMALLOC") or "PYHEAP" in n]
            assert not bad, bad
            with open(os.devnull) as file:
                assert file.fileno() == 3, file.fileno()
            pyheap.epoch(wait=True)
            with open(os.devnull) as file:
                assert file.fileno() == 3, file.fileno()
        """)
        self.assert_ended(done)

    def test_few_descriptors_are_enough(self):
        argv = self.argv(COUNTING, 3)
        self.assert_ended(self.finish(["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *argv]))

    def test_a_program_that_closes_every_descriptor(self):
        keeper, target = self.start(self.argv("""
            import os, sys, pyheap
            pyheap.epoch(wait=True)
            os.closerange(3, 1 << 20)
            try:
                pyheap.epoch(wait=True)
                print("took one", flush=True)
            except pyheap.Error as error:
                print("clear error:", error, flush=True)
        """))
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assertIn("clear error", self.out.read_text())

    def test_standard_streams_through_pipes(self):
        argv = self.argv("import sys, pyheap\nprint(sys.stdin.read().upper())\n"
                         "pyheap.epoch()\nprint('err', file=sys.stderr)")
        done = subprocess.run(argv, input="text", capture_output=True, text=True,
                              timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "TEXT\n", "err\n"))

    def test_arguments_after_the_script_are_the_programs(self):
        done = self.run_program("import sys; print(sys.argv[1:])", "--fresh", "--pool", "-x")
        self.assertEqual(done.stdout.strip(), "['--fresh', '--pool', '-x']")

    def test_python3_is_found_on_the_path(self):
        (self.directory / "bin").mkdir()
        os.symlink(self.python, self.directory / "bin" / "python3")
        path = f"{self.directory / 'bin'}:/usr/bin:/bin"
        script = self.script("import sys, pyheap; print(sys.executable, pyheap.active)")
        done = self.finish([self.commands.run, "--pool", self.pool, script],
                           env={**os.environ, "PATH": path})
        self.assertEqual(done.stdout.split(), [f"{self.directory}/bin/python3", "True"],
                         done.stderr)

    def test_a_virtual_environment(self):
        venv = self.directory / "venv"
        subprocess.run([self.python, "-m", "venv", "--without-pip", venv], check=True)
        self.python = str(venv / "bin" / "python")
        done = self.run_program("import sys, pyheap\n"
                                "print(sys.prefix, sys.prefix != sys.base_prefix, pyheap.active)")
        self.assertEqual(done.stdout.split(), [str(venv), "True", "True"], done.stderr)

    def test_a_shell_script_as_interpreter(self):
        # As pyenv's shims are.
        shim = self.directory / "python3"
        shim.write_text(f'#!/bin/sh\nexec {self.python} "$@"\n', encoding="ascii")
        shim.chmod(0o755)
        self.python = str(shim)
        self.assert_ended(self.run_program(COUNTING, 3))
