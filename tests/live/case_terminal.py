# SPDX-License-Identifier: MIT
"""case_terminal - programs that go on in another terminal"""
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from unittest import mock

from case import Case
from commands import PATIENCE
from processes import children_of

# A screen that shows how often it was drawn and how large it is; writes only what changes.
CURSES = """
    import curses, os, pyheap
    def main(screen):
        drawn = 0
        while True:
            screen.addstr(0, 0, "drawn %d, %d by %d " % (drawn, *screen.getmaxyx()))
            screen.addstr(5, 3, "what never changes")
            screen.refresh()
            {epoch}
            key = screen.getch()
            if key == ord("q"):
                return
            drawn += key == ord("d")
    curses.wrapper(main)
    print("ended well")
"""

# As a progress bar does it: the width is asked for when a signal says that it has changed.
BAR = """
    import os, signal, sys, time, pyheap
    width = os.get_terminal_size().columns
    def resized(*_):
        global width
        width = os.get_terminal_size().columns
    signal.signal(signal.SIGWINCH, resized)
    step = 0
    while not os.path.exists("enough"):
        step += 1
        print(f"\\r{width}:".ljust(width - 1, "#"), end="", file=sys.stderr, flush=True)
        pyheap.epoch()
        time.sleep(0.01)
"""

# Sets its terminal to neither echo nor collect lines, by hand.
RAW = """
    import os, termios, tty, pyheap
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        while True:
            pyheap.epoch(wait=True)
            os.write(1, b"ready")
            if os.read(0, 1) == b"q":
                break
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
"""

FOREGROUND = """
    import os, signal, sys, pyheap
    if {own}:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
    numbers = os.getpid(), os.getpgrp(), os.getsid(0), os.tcgetpgrp(0), os.getppid()
    assert ({own} and numbers[0] or numbers[1]) == numbers[1] == numbers[3]
    while True:
        assert input() == "go on"
        pyheap.epoch(wait=True)
        now = os.getpid(), os.getpgrp(), os.getsid(0), os.tcgetpgrp(0), os.getppid()
        assert now == numbers, (numbers, now)
        print("in the foreground", flush=True)
"""


class Window:
    """A terminal with a command in it, as a terminal emulator has it."""

    def __init__(self, case, argv, rows=24, columns=80, erase=b"\x7f"):
        self.case = case
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
            modes = termios.tcgetattr(0)
            modes[6][termios.VERASE] = erase
            termios.tcsetattr(0, termios.TCSANOW, modes)
            os.chdir(case.directory)
            os.environ["TERM"] = "xterm"
            os.closerange(3, 1000)
            os.execv(argv[0], argv)
        case.addCleanup(self.close)
        self.status = None

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)  # what is left of the program gets SIGHUP

    def show(self, *texts):
        """Read until all the texts were shown. @return what was."""
        shown, deadline = b"", time.monotonic() + PATIENCE
        while not all(text in shown for text in texts):
            if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
                self.case.fail(f"not shown: {texts}; but {shown[-2000:]}")
            try:
                shown += os.read(self.fd, 4096)
            except OSError:  # nobody has it open any more
                self.case.fail(f"not shown before its end: {texts}; but {shown[-2000:]}")
        return shown

    def type(self, keys):
        os.write(self.fd, keys)

    def wait_asleep(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            with open(f"/proc/{children_of(self.pid)[0]}/stat", encoding="ascii") as stat:
                if stat.read().rpartition(") ")[2].startswith("S"):
                    return
            self.case.assertLess(time.monotonic(), deadline, "it does not wait for anything")
            time.sleep(0.001)

    @staticmethod
    def executable(pid):
        return os.readlink(f"/proc/{pid}/exe")

    def stop_restorer(self):
        """As soon as it is there, which is before it has read anything."""
        deadline, before = time.monotonic() + PATIENCE, self.executable(self.pid)
        while True:
            for child in children_of(self.pid):
                if self.executable(child) not in (before, self.executable(self.pid)):
                    os.kill(child, signal.SIGSTOP)
                    self.stopped = child
                    return
            self.case.assertLess(time.monotonic(), deadline, "there is no restorer")

    def let_go_on(self):
        os.kill(self.stopped, signal.SIGCONT)

    def modes(self):
        return termios.tcgetattr(self.fd)

    def cooked(self):
        return self.modes()[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON

    def kill_program(self):
        """SIGKILL for the program; the keeper says how to go on and ends."""
        os.kill(children_of(self.pid)[0], signal.SIGKILL)
        shown = self.show(b"pyheap-recover " + self.case.pool.encode())
        self.wait()
        return shown

    def wait(self):
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


class Terminals(Case):
    def window(self, text, *options, **more):
        return Window(self, self.argv(text, options=options), **more)

    def again(self, *options, **more):
        return Window(self, [self.commands.recover, *options, self.pool], **more)

    def chain(self, window, *options):
        window.show(b"drawn 0, 24 by 80", b"what never changes")
        window.type(b"d")
        window.show(b"1")
        self.wait_epoch(self.commands.newest(self.pool) + 2 if options else 2)
        window.kill_program()
        window = self.again(*options)  # of the same size: nothing has changed but all of it
        window.show(b"drawn 1, 24 by 80", b"what never changes")
        self.wait_epoch(self.commands.newest(self.pool) + 2 if options else 2)
        window.kill_program()
        window = self.again(*options, rows=30, columns=100)
        window.show(b"30", b"100", b"what never changes")
        window.type(b"d")
        window.show(b"2")
        window.type(b"q")
        window.show(b"ended well")
        self.assertEqual(window.wait(), 0)

    def test_a_curses_program_draws_its_screen_again(self):
        self.chain(self.window(CURSES.format(epoch="pyheap.epoch(wait=True)")))

    def test_a_curses_program_that_never_heard_of_pyheap(self):
        options = ["--every", "50ms"]
        self.chain(self.window(CURSES.format(epoch="pass"), *options), *options)

    def test_a_progress_bar_has_the_width_of_the_new_window(self):
        window = self.window(BAR)
        window.show(b"\r80:####")
        self.wait_epoch(2)
        window.kill_program()
        window = self.again(columns=60)
        window.show(b"\r60:####")
        (self.directory / "enough").touch()
        self.assertEqual(window.wait(), 0)

    def test_reading_that_takes_longer_shows_how_far_it_is(self):
        """The restorer is stopped while it reads: a second later its parent says so."""
        window = self.window("""
            import pyheap
            data = bytearray(b"content!" * (12 << 20))
            pyheap.epoch(wait=True)
            print("as it was" if data == b"content!" * (12 << 20) else "damaged", flush=True)
            input()""")
        window.show(b"as it was")
        window.kill_program()
        window = self.again()
        window.stop_restorer()
        shown = window.show(b"reading epoch 1: ", b" of 0.1 GiB, ")
        window.let_go_on()
        shown += window.show(b"as it was")
        self.assertLess(shown.rindex(b"reading"), shown.rindex(b"\r\033[K"), shown)
        self.assertLess(shown.rindex(b"\r\033[K"), shown.rindex(b"as it was"), shown)
        window.type(b"\n")
        self.assertEqual(window.wait(), 0)

    def test_modes_that_the_program_has_set_and_no_others(self):
        window = self.window(RAW)
        window.show(b"ready")
        self.assertFalse(window.cooked())
        said = window.kill_program()
        self.assertIn(b"\r\n", said)  # it can be read, and what is typed now can be seen
        self.assertTrue(window.cooked())
        for _ in range(2):
            window = self.again(erase=b"\x08")
            # The epoch that it goes on from, then one in which the new terminal is known.
            for _ in range(2):
                window.show(b"ready")
                self.assertFalse(window.cooked())
                self.assertEqual(window.modes()[6][termios.VERASE], b"\x08")
                window.type(b"x")
            window.show(b"ready")
            window.kill_program()
        window = self.again()
        window.show(b"ready")
        window.type(b"q")
        self.assertEqual(window.wait(), 0)
        self.assertTrue(window.cooked())

    def test_a_program_in_the_foreground_is_there_again(self):
        for own in (True, False):
            self.pool = str(self.directory / f"{own}.pm")
            window = self.window(FOREGROUND.format(own=own))
            window.type(b"go on\n")
            window.show(b"in the foreground")
            for _ in range(3):
                window.kill_program()
                window = self.again()
                window.show(b"in the foreground")
                window.type(b"go on\n")
                window.show(b"in the foreground")
            window.wait_asleep()  # in input(), which does not see what came just before it
            window.type(b"\x03")  # the terminal's SIGINT is the program's
            window.show(b"KeyboardInterrupt")

    def interactive(self, *options):
        return Window(self, [self.commands.run, "--pool", self.pool, "--python", self.python,
                             *options, "-qi"])

    def test_an_interactive_interpreter_knows_what_was_typed(self):
        window = self.interactive()
        typed = 0
        for _ in range(3):
            window.show(b">>> ")
            for line in ("import pyheap", f"x = globals().get('x', []) + [{typed}]",
                         "pyheap.epoch(wait=True)"):
                window.type(line.encode() + b"\n")
            typed += 1
            self.wait_epoch(typed)
            window.type(b"x = None\n")
            window.kill_program()
            window = self.again()
        window.show(b">>> ")
        window.type(b"print('typed', sum(x) * 1000)\n")
        window.show(b"typed 3000")
        window.type(b"exit()\n")
        self.assertEqual(window.wait(), 0)

    def test_readline_shows_its_prompt_again(self):
        with mock.patch.dict(os.environ, PYTHON_BASIC_REPL="1"):
            self.edit_lines()

    def test_the_editor_of_newer_pythons_shows_its_prompt_again(self):
        """Since 3.13; before, this is readline, too."""
        self.edit_lines()

    def edit_lines(self):
        options = ["--every", "50ms"]
        window = self.interactive(*options)
        window.show(b">>> ")
        window.type(b"x = [1]\nprint(x * 3)\n")
        window.show(b"[1, 1, 1]")
        for shown in b"[1, 2, 1, 2]", b"[1, 2, 2, 1, 2, 2]":
            self.wait_epoch(self.commands.newest(self.pool) + 2)
            window.kill_program()
            window = self.again(*options)
            window.show(b">>> ")
            window.type(b"x += [2]; print(x * 2)\n")
            window.show(shown)
        window.type(b"exit()\n")
        self.assertEqual(window.wait(), 0)
