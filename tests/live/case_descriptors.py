# SPDX-License-Identifier: MIT
"""case_descriptors - what cannot come back, and how that is told; what the program was given"""
import os
import resource
import signal
import socket
import subprocess

from case_terminal import Window
from commands import PATIENCE
from processes import program_of
from waiting import WAITING, Waiting


# A hundred timers that call a function, each a millisecond after the other, and one that is never
# set; the pause of the epoch takes longer than most.
TIMERS = """
    import ctypes, os, signal, sys, time, pyheap
    libc = ctypes.CDLL(None)
    CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    class Event(ctypes.Structure):
        _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int),
                    ("notify", ctypes.c_int), ("function", CALL), ("rest", ctypes.c_long * 8)]
    calls = []
    callback = CALL(calls.append)
    timers = [ctypes.c_void_p() for _ in range(100)]
    for n, timer in enumerate(timers):
        event = Event(n, 0, 2, callback)
        assert libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0
    data = bytearray(400 << 20)
    pyheap.epoch(wait=True)
    data[::4096] = b"x" * len(data[::4096])
    for n, timer in enumerate(timers[1:], 1):
        spec = (ctypes.c_long * 4)(0, 0, 0, n * 1000000)
        assert libc.timer_settime(timer, 0, spec, None) == 0
    pyheap.epoch(wait=True)
    if not pyheap.status()["recoveries"]:
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.time() + 20
    while len(calls) < 99 and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    print((int(pyheap.status()["pause"] * 1000), sorted(set(calls)), len(calls) - len(set(calls))))
"""


# A child takes out of a pipe all the time, byte by byte.
EMPTYING = """
    import os, signal, pyheap
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(into)
        while os.read(out, 1):
            pass
        os._exit(0)
    os.set_blocking(into, False)
    for step in range(100):
        try:
            os.write(into, bytes(65536))
        except BlockingIOError:
            pass
        pyheap.epoch()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


# Descriptions of one file, pairs and pipes, more than the kernel is asked about one by one, and a
# duplicate of each; so many that all numbers up to 1200 are in use.
MANY = """
    import os, resource, signal, socket, pyheap
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kinds = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
    pairs = [socket.socketpair(socket.AF_UNIX, kinds[n % 3]) for n in range(80)]
    for n, (a, b) in enumerate(pairs):
        a.send(b"%d" % n)
    pairs[0][0].shutdown(socket.SHUT_WR)
    ends = [a.dup() for a, b in pairs]
    orphan, closed = socket.socketpair()
    closed.close()
    pipes = [os.pipe() for _ in range(40)]
    into = [os.dup(w) for r, w in pipes]
    files = [os.open(__file__, os.O_RDONLY) for _ in range(80)]
    same = [os.dup(fd) for fd in files]
    for n, fd in enumerate(files):
        os.lseek(fd, n // 2, os.SEEK_SET)
    while hard > 1300 and os.dup(files[0]) < 1200:
        pass
    pyheap.epoch(wait=True)
    if not pyheap.status()["recoveries"]:
        os.kill(os.getpid(), signal.SIGKILL)
    for n, (a, b) in enumerate(pairs):
        assert b.recv(10) == b"%d" % n
        b.send(b"back %d" % n)
        assert ends[n].recv(20) == b"back %d" % n
    assert pairs[0][1].recv(1) == b"" and orphan.recv(1) == b""
    for n, (r, w) in enumerate(pipes):
        os.write(into[n], b"%d" % n)
        assert os.read(r, 10) == b"%d" % n
    for n, fd in enumerate(files):
        assert os.lseek(fd, 1000, os.SEEK_CUR) == os.lseek(same[n], 0, os.SEEK_CUR) == 1000 + n // 2
    print("recovered")
"""


class Descriptors(Waiting):
    def test_many_descriptions_are_told_apart(self):
        done = self.run_program(MANY)
        self.assert_killed(done.returncode, signal.SIGKILL)
        self.assertNotIn("cannot come back", done.stderr)
        self.assert_recovers()

    # ---- warnings, strict mode -------------------------------------------------------

    def test_a_pipe_that_a_child_is_emptying_comes_back(self):
        done = self.run_program(EMPTYING)
        self.assert_ended(done)
        self.assertNotIn("descriptor", done.stderr)

    def test_a_warning_names_the_peer(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.stopped(f"import socket; s = socket.create_connection(('127.0.0.1', {port}));"
                         "l = socket.create_server(('127.0.0.1', 0));"
                         "u = socket.socket(socket.AF_UNIX); u.bind('here.socket'); u.listen()",
                         "assert s.recv(10) == b''")
        warnings = self.err.read_text()
        self.assertIn(f"TCP socket connected to 127.0.0.1:{port}", warnings)
        self.assertIn("TCP socket listening on 127.0.0.1:", warnings)
        self.assertIn("Unix socket listening on here.socket", warnings)
        self.assert_recovers()

    def test_a_warning_comes_once_for_a_thing_whatever_its_number(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            done = self.run_program(f"""
                import os, socket, pyheap
                for n in range(8):
                    with socket.create_connection(("127.0.0.1", {port})) as one:
                        pyheap.epoch()
                        held = [os.dup(1) for _ in range(n)]
                        with socket.create_connection(("127.0.0.1", {port})):
                            pyheap.epoch()
            """)
        self.assert_ended(done)
        self.assertEqual(done.stderr.count("cannot come back"), 1, done.stderr)

    def test_there_is_an_end_to_warnings(self):
        done = self.run_program("""
            import socket, pyheap
            for n in range(3):
                many = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(80)]
                for one in many:
                    one.bind(("127.0.0.1", 0))
                pyheap.epoch()
                pyheap.epoch()
        """)
        self.assert_ended(done)
        self.assertEqual(done.stderr.count("cannot come back"), 64, done.stderr)
        self.assertEqual(done.stderr.count("no more of them are named"), 1)

    def test_leases_and_rings_are_named(self):
        done = self.run_program("""
            import ctypes, fcntl, mmap, pyheap
            leased = open("leased.txt", "w")
            fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            libc = ctypes.CDLL(None)
            ring = libc.syscall(425, 4, (ctypes.c_uint32 * 30)())
            pyheap.epoch()
            pyheap.epoch()
            print(ring >= 0)
        """)
        self.assert_ended(done)
        self.assertEqual(done.stderr.count("the lease on"), 1, done.stderr)
        self.assertIn("leased.txt cannot come back", done.stderr)
        if done.stdout == "True\n":  # else the system does not allow them
            self.assertEqual(done.stderr.count("an io_uring"), 1, done.stderr)

    def test_fifos_that_others_have_open(self):
        """Named and dead; but what others put into one that the program has both ends of stays."""
        for name in "in", "out", "both":
            os.mkfifo(self.directory / name)
        outside = [os.open(self.directory / name, os.O_RDWR) for name in ("in", "out", "both")]
        try:
            self.stopped("r = os.open('in', os.O_RDONLY); w = os.open('out', os.O_WRONLY);"
                         "both = os.open('both', os.O_RDWR); os.write(both, b'first')",
                         "assert os.read(r, 1) == b''; print(os.read(both, 99))")
            said = self.err.read_text()
            self.assertIn("a pipe that another process writes to", said)
            self.assertIn("a pipe that another process reads from", said)
            self.assertEqual(said.count("closed at the other end"), 2, said)
            os.write(outside[2], b" second")
            self.assertIn("b'first second'", self.assert_recovers().stdout)
        finally:
            for fd in outside:
                os.close(fd)

    def test_a_fifo_that_is_gone(self):
        """Before the epoch it is named; after it recovery refuses."""
        self.stopped("os.mkfifo('one'); os.mkfifo('two'); one, two = [os.open(name, os.O_RDWR) "
                     "for name in ('one', 'two')]; os.remove('one')", "os.write(two, b'x')")
        said = self.err.read_text()
        self.assertEqual(said.count("cannot come back"), 1, said)
        os.remove(self.directory / "two")
        self.assert_refused(self.recover(), "PH_EFILES", "two", "removed since")
        os.mkfifo(self.directory / "two")
        self.assert_recovers()

    def test_a_removed_fifo_by_name_alone(self):
        self.stopped("os.mkfifo('fifo'); fd = os.open('fifo', os.O_PATH); os.remove('fifo')",
                     "import errno\n"
                     "    try: os.stat('', dir_fd=fd)\n"
                     "    except OSError as error: print(error)")
        self.assertIn("calls with it fail", self.err.read_text())
        self.assert_recovers()

    def test_a_working_directory_that_goes_after_the_epoch(self):
        self.stopped("os.mkdir('there'); os.chdir('there')")
        os.rmdir(self.directory / "there")
        self.assert_refused(self.recover(), "PH_EFILES", "there", "working directory")
        os.mkdir(self.directory / "there")
        self.assert_recovers()

    def test_terminals_that_it_does_not_run_in(self):
        """Both ends are named, once, and dead; the terminal of the recovery is not taken for one."""
        self.stopped("import pty; m, s = pty.openpty(); pyheap.epoch()",
                     "assert not os.isatty(m) and not os.isatty(s)\n"
                     "    assert os.read(m, 9) == os.read(s, 9) == b''\n"
                     "    m, s = pty.openpty(); os.write(m, b'a line\\n'); print(os.read(s, 9))")
        said = self.err.read_text()
        for name in "the master of /dev/pts/", "(/dev/pts/":
            self.assertEqual(said.count(name), 1, said)
        self.assertEqual(said.count("cannot come back"), 2, said)
        window = Window(self, [self.commands.recover, self.pool])
        window.show(b"a line", b"recovered")
        self.assertEqual(window.wait(), 0)

    def test_strict_mode_raises_instead_and_names_all(self):
        done = self.run_program("""
            import socket, pyheap
            sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
            try:
                pyheap.epoch()
            except pyheap.UnsupportedError as error:
                for s in sockets:
                    assert f"descriptor {s.fileno()} (TCP socket" in str(error), error
            else:
                raise SystemExit("no error")
            for s in sockets:
                s.close()
            assert pyheap.epoch(wait=True) == 1
        """, options=["--strict"])
        self.assert_ended(done)
        self.assertEqual(done.stderr, "")

    def test_a_mapped_file_that_is_too_large_to_be_kept_is_named(self):
        """Once, and not if it is to be left as it is."""
        text = """
            import mmap, pyheap
            with open("large", "wb") as file:
                file.truncate(17 << 20)
            with open("large", "r+b") as file:
                held = mmap.mmap(file.fileno(), 0), mmap.mmap(file.fileno(), 4096)
                try:
                    pyheap.epoch(wait=True)
                except pyheap.UnsupportedError as error:
                    print(error)
                held[0][5] = 5
                pyheap.keep_file(file)
            pyheap.epoch(wait=True)
        """
        done = self.run_program(text)
        self.assert_ended(done)
        self.assertEqual(done.stderr.count("large as it is mapped"), 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        done = self.run_program(text, options=["--strict"])
        self.assert_ended(done)
        self.assertIn("large as it is mapped", done.stdout)

    def test_strict_mode_in_a_recovery(self):
        self.stopped("pass", "import socket; s = socket.create_server(('127.0.0.1', 0));"
                             "pyheap.epoch()")
        done = self.recover("--strict")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("UnsupportedError", done.stderr)

    def test_children_are_named(self):
        text = """
            import subprocess, pyheap
            child = subprocess.Popen(["sleep", "1000"])
            try:
                for n in range(2):
                    pyheap.epoch()
            except pyheap.UnsupportedError as error:
                print(error)
            finally:
                child.kill()
                child.wait()
            pyheap.epoch(wait=True)
        """
        done = self.run_program(text)
        self.assert_ended(done)
        self.assertEqual(done.stderr.count("a child process, sleep cannot come back"), 1)
        done = self.run_program(text, options=["--strict", "--fresh"])
        self.assert_ended(done)
        self.assertEqual(done.stderr, "")
        self.assertIn("cannot come back: a child process, sleep", done.stdout)

    # ---- timers ----------------------------------------------------------------------

    def test_timers_with_one_signal_that_expire_during_an_epoch(self):
        """Each of many, some of them while the threads are stopped, calls once and not twice."""
        done = self.run_program(TIMERS)
        self.assert_killed(done.returncode, signal.SIGKILL)
        done = self.recover()
        self.assert_ended(done)
        during, called, more = eval(done.stdout)
        self.assertGreater(during, 0, "none expired during the epoch")
        self.assertEqual((called, more), (list(range(1, 100)), 0))

    # ---- callbacks -------------------------------------------------------------------

    def test_callbacks_run_before_an_epoch(self):
        done = self.run_program("""
            import socket, pyheap
            order = []
            @pyheap.on_epoch
            def first():
                order.append("first")
                server.close()
            pyheap.on_epoch(lambda: order.append("second"))
            for n in 1, 2:
                server = socket.create_server(("127.0.0.1", 0))
                assert pyheap.epoch(wait=True) == n  # strict: nothing is left to complain of
            assert order == ["first", "second"] * 2, order
            @pyheap.on_epoch
            def third():
                raise KeyError("no epoch, please")
            try:
                pyheap.epoch()
            except KeyError:
                assert pyheap.status()["epoch"] == 2
            else:
                raise SystemExit("no exception")
        """, options=["--strict"])
        self.assert_ended(done)

    def test_a_callback_before_an_epoch_cannot_take_one(self):
        done = self.run_program("""
            import pyheap
            pyheap.on_epoch(pyheap.epoch)
            try:
                pyheap.epoch()
            except pyheap.Error as error:
                assert "on_epoch" in str(error), error
            else:
                raise SystemExit("no exception")
            for wrong in pyheap.on_epoch, pyheap.keep_file:
                try:
                    wrong(1.5)
                except TypeError:
                    continue
                raise SystemExit("no TypeError")
        """)
        self.assert_ended(done)

    # ---- given ------------------------------------------------------------------------

    def test_descriptors_that_it_was_given(self):
        """Of a number that the program was given, it gets what the recovery was given."""
        read, write = os.pipe()
        other_read, other_write = os.pipe()
        self.addCleanup(lambda: [os.close(fd) for fd in (read, other_read)])
        try:
            text = WAITING.format(prepare="os.write(7, b'first'); d = os.dup(7)",
                                  finish="os.write(7, b'second'); os.write(d, b'dup')")
            with open(self.out, "ab") as out, open(self.err, "ab") as err:
                keeper = subprocess.Popen(self.argv(text), stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=err, cwd=self.directory, pass_fds=[7],
                                          preexec_fn=lambda: os.dup2(write, 7))
            self.addCleanup(lambda: keeper.kill() or keeper.wait())
            self.wait_printed("epoch")
            target = program_of(keeper, PATIENCE)
            target.signal(signal.SIGKILL)
            target.close()
            keeper.wait(PATIENCE)
            self.assertEqual(os.read(read, 100), b"first")
            self.assertNotIn("cannot come back", self.err.read_text())
            done = self.finish([self.commands.recover, self.pool], pass_fds=[7],
                               preexec_fn=lambda: os.dup2(other_write, 7))
            self.assert_ended(done)
            self.assertEqual(os.read(other_read, 100), b"seconddup")
        finally:
            os.close(write)
            os.close(other_write)

    # It has 100, which it was given, and may have none above 64.
    FEW = """
        import os, signal, pyheap
        pyheap.epoch(wait=True)
        if not pyheap.status()["recoveries"]:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(100, b"second")
        try:
            os.dup2(100, 99)
        except OSError:
            print("recovered")
    """

    def few(self, fd):
        def install():
            if fd is not None:
                os.dup2(fd, 100)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return {"close_fds": False, "preexec_fn": install}

    def test_one_at_a_number_that_is_beyond_the_limit(self):
        read, write = os.pipe()
        path = self.directory / "file"
        path.touch()
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        for fd in (write, file):
            self.assert_killed(self.run_program(self.FEW, options=["--fresh"], **self.few(fd)).returncode,
                               signal.SIGKILL)
            self.assert_recovers(**self.few(fd))
        os.close(write)
        os.close(file)
        self.assertEqual(os.read(read, 100), b"second")
        os.close(read)
        self.assertEqual(path.read_text(), "second")

    def test_one_at_a_number_that_cannot_be_had(self):
        file = os.open(self.directory / "file", os.O_WRONLY | os.O_CREAT, 0o600)
        self.run_program(self.FEW, **self.few(file))
        os.close(file)
        done = self.finish([self.commands.recover, self.pool], **self.few(None))
        self.assert_refused(done, "PH_EMFILE", "raise ulimit -n", "descriptor 100")
