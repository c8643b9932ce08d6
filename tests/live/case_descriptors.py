# SPDX-License-Identifier: MIT
"""case_descriptors - what cannot come back, locks of others, databases, files that are gone"""
import fcntl
import os
import signal
import socket
import subprocess
import textwrap

from case import Case
from commands import PATIENCE
from processes import program_of

# Takes an epoch in the state that the test prepares, says so and waits to be killed; a
# recovered one ends. `after` is what it does between its last epoch and its death.
WAITING = """
    import fcntl, os, sqlite3, sys, time
    import pyheap
    def after():
        pass
    {prepare}
    number = pyheap.epoch(wait=True)
    if not pyheap.status()["recoveries"]:
        after()
        print("epoch", number, flush=True)
        time.sleep(600)
    {finish}
    print("recovered")
"""


class Descriptors(Case):
    def stopped(self, prepare, finish="pass", options=(), **more):
        """A program that was killed after the epoch that it took when prepared."""
        text = WAITING.format(prepare=prepare, finish=finish)
        keeper, target = self.start(self.argv(text, options=options), **more)
        self.wait_printed("epoch")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)

    def assert_recovers(self, *options, **more):
        done = self.finish([self.commands.recover, *options, self.pool], **more)
        self.assert_ended(done)
        self.assertIn("recovered", done.stdout)
        return done

    # ---- warnings, strict mode -------------------------------------------------------

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
                    wrong("nonsense")
                except TypeError:
                    continue
                raise SystemExit("no TypeError")
        """)
        self.assert_ended(done)

    # ---- files -----------------------------------------------------------------------

    def test_a_kept_file_is_not_cut_back(self):
        self.stopped("f = pyheap.keep_file(open('kept', 'w')); g = open('cut', 'w');"
                     "f.write('1\\n'); g.write('1\\n'); f.flush(); g.flush();"
                     "after = lambda: [h.write('2\\n') and h.flush() for h in (f, g)]")
        self.assertEqual((self.directory / "cut").read_text(), "1\n2\n")
        self.assert_recovers()
        self.assertEqual((self.directory / "kept").read_text(), "1\n2\n")
        self.assertEqual((self.directory / "cut").read_text(), "1\n")

    def test_a_file_that_was_cut_short_is_kept_if_asked_for(self):
        """By path, by pattern; a name that is none of the program's is an error."""
        self.stopped("f = open('short', 'w'); g = open('cut', 'w'); h = open('other', 'w');"
                     "[x.write('1\\n') and x.flush() for x in (f, g, h)];"
                     "after = lambda: [x.write('2\\n') and x.flush() for x in (g, h)]")
        os.truncate(self.directory / "short", 1)
        self.assert_refused(self.recover(), "PH_EFILES", "short", "shorter", "--keep-file")
        self.assert_refused(self.recover("--keep-file", "shirt"), "PH_EUSAGE", "shirt")
        self.assertEqual((self.directory / "cut").read_text(), "1\n2\n")
        self.assert_recovers("--keep-file", "short", "--keep-file", "*/oth*")
        self.assertEqual((self.directory / "short").read_text(), "1")
        self.assertEqual((self.directory / "cut").read_text(), "1\n")
        self.assertEqual((self.directory / "other").read_text(), "1\n2\n")

    def test_what_was_overwritten_in_the_middle_is_told(self):
        """Nothing brings it back, but nobody shall believe so; of a file's end nothing is said."""
        for where, told in (2, True), (10, False), (None, False):
            with self.subTest(where):
                for path in (self.directory / "test.pm", self.out):
                    path.unlink(missing_ok=True)
                after = "f.write('xyz') and f.flush()" if where else "0"
                self.stopped("open('file', 'w').write('0123456789'); f = open('file', 'r+');"
                             f"f.seek({where or 2}); after = lambda: {after}")
                said = self.assert_recovers().stderr
                self.assertEqual("overwritten" in said, told, said)
                self.assertEqual((self.directory / "file").read_text(),
                                 "01xyz56789" if told else "0123456789")

    def test_an_open_file_that_was_removed_is_named(self):
        self.stopped("f = open('gone', 'w'); f.write('x'); f.flush()")
        os.remove(self.directory / "gone")
        self.assert_refused(self.recover(), "PH_EFILES", "gone", "removed since", "--epoch")

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

    # ---- locks -----------------------------------------------------------------------

    def test_a_lock_that_the_caller_holds_is_not_in_the_way(self):
        """As of `flock file pyheap-run ...`: the program has the caller's descriptor."""
        with open(self.directory / "held", "w") as mine:
            fcntl.flock(mine, fcntl.LOCK_EX)
            give = {"pass_fds": [7], "preexec_fn": lambda: os.dup2(mine.fileno(), 7)}
            self.stopped("os.write(7, b'1')", "os.write(7, b'2')", **give)
            self.assert_refused(self.recover(), "PH_EFILES", "held", "another process")
            os.chmod(self.directory / "held", 0)  # nobody needs to open it
            done = self.finish([self.commands.recover, self.pool], **give)
            os.chmod(self.directory / "held", 0o644)
            self.assertEqual((done.returncode, done.stdout), (0, "recovered\n"), done.stderr)
            with open(self.directory / "held") as other:
                with self.assertRaises(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.assertEqual((self.directory / "held").read_text(), "12")

    LOCKS = {
        "fcntl": "f = open('locked', 'w'); fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)",
        "flock": "f = open('locked', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
    }

    def test_a_lock_that_another_process_holds_refuses(self):
        for kind, prepare in self.LOCKS.items():
            with self.subTest(kind), open(self.directory / "locked", "w") as mine:
                if os.path.exists(self.pool):
                    os.remove(self.pool)
                self.out.write_text("")
                self.stopped(prepare)
                lock = fcntl.lockf if kind == "fcntl" else fcntl.flock
                lock(mine, fcntl.LOCK_EX)
                words = [f"process {os.getpid()}"] if kind == "fcntl" else ["another process"]
                self.assert_refused(self.recover(), "PH_EFILES", "locked", *words)
                lock(mine, fcntl.LOCK_UN)
                self.assert_recovers()

    def test_a_lock_goes_when_the_program_closes_its_file(self):
        """Though the keeper, which stands still here, has yet to make the file durable."""
        self.stopping_the_keeper("""
            held = open("held", "w")
            fcntl.lockf(held, fcntl.LOCK_EX)
            for round_ in range(3):
                file = open("locked", "a")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for one in file, held:
                    print(round_, file=one, flush=True)
                pyheap.epoch()
                file.close()
            with open("/proc/locks") as locks:  # of the process's own, none was lost
                assert f"POSIX  ADVISORY  WRITE {os.getpid()} " in locks.read()
        """)

    def test_more_files_than_can_be_on_their_way(self):
        self.stopping_the_keeper("""
            files = [open(f"f{n}", "w") for n in range(40)]
            for round_ in range(5):
                for file in files:
                    print(round_, file=file, flush=True)
                pyheap.epoch()
        """, ["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])

    def test_a_lock_on_a_file_without_a_name_stays(self):
        done = self.run_program("""
            import fcntl, os, tempfile, pyheap
            file = tempfile.TemporaryFile()
            file.write(b"text")
            file.flush()
            fcntl.lockf(file, fcntl.LOCK_EX)
            pyheap.epoch(wait=True)
            assert file.tell() == 4 and os.lseek(file.fileno(), 0, os.SEEK_CUR) == 4
            with open("/proc/locks") as locks:
                print(f" {os.getpid()} " in locks.read())
        """)
        self.assertEqual(done.stdout, "True\n", done.stderr)

    def stopping_the_keeper(self, text, before=()):
        done = self.finish([*before, *self.argv(
            "import fcntl, os, signal, pyheap\n"
            "keeper = os.getppid()\n"
            "os.kill(keeper, signal.SIGSTOP)\n"
            "try:\n" + textwrap.indent(textwrap.dedent(text), "    ") +
            "finally:\n"
            "    os.kill(keeper, signal.SIGCONT)\n"
            "pyheap.sync()\n")])
        self.assert_ended(done)
        self.assertEqual(done.stderr, "")

    # ---- SQLite ----------------------------------------------------------------------

    DATABASE = ("db = sqlite3.connect('data.db', isolation_level=None);"
                "db.execute('PRAGMA journal_mode = {mode}');"
                "db.execute('CREATE TABLE IF NOT EXISTS t (k PRIMARY KEY, v)');"
                "db.execute('INSERT INTO t VALUES (1, 1)');")
    GROW = ("[db.execute('BEGIN'), db.executemany('INSERT OR REPLACE INTO t VALUES (?, 5)', "
            "[(i,) for i in range(2, 9999)]), db.execute('COMMIT')]")

    def test_a_database_that_grew_after_the_epoch_stays_whole(self):
        for mode in ("DELETE", "TRUNCATE", "PERSIST", "WAL"):
            with self.subTest(mode):
                for path in self.directory.glob("*.*"):
                    path.unlink()
                self.stopped(self.DATABASE.format(mode=mode) + f"after = lambda: {self.GROW}",
                             f"{self.GROW}; n = db.execute('SELECT count(*), sum(v) FROM t')"
                             ".fetchone(); assert n == (9998, 1 + 5 * 9997), n; "
                             "n = db.execute('PRAGMA integrity_check').fetchone();"
                             "assert n == ('ok',), n")
                self.assertIn("SQLite", self.assert_recovers().stderr)

    def test_a_database_changed_since_an_epoch_in_a_transaction_is_refused(self):
        for mode in ("DELETE", "WAL"):
            with self.subTest(mode):
                for path in self.directory.glob("*.*"):
                    path.unlink()
                self.stopped(self.DATABASE.format(mode=mode) + "db.execute('BEGIN');"
                             "db.execute('INSERT INTO t VALUES (2, 2)');"
                             "after = lambda: db.execute('COMMIT')")
                self.assert_refused(self.recover(), "PH_EFILES", "data.db", "transaction",
                                    "--epoch")

    def test_an_open_transaction_goes_on(self):
        for mode in ("DELETE", "WAL"):
            with self.subTest(mode):
                for path in self.directory.glob("*.*"):
                    path.unlink()
                self.stopped(self.DATABASE.format(mode=mode) + "db.execute('BEGIN');"
                             "db.execute('INSERT INTO t VALUES (2, 2)')",
                             "db.execute('COMMIT'); n = db.execute('SELECT sum(v) FROM t')"
                             ".fetchone(); assert n == (3,), n; "
                             "n = db.execute('PRAGMA integrity_check').fetchone();"
                             "assert n == ('ok',), n")
                done = self.assert_recovers()
                self.assertNotIn("SQLite", done.stderr)

    # ---- files that the program makes shorter ------------------------------------------

    UNDO = property(lambda self: self.directory / "test.pm.undo")
    CUT = ("f = open('cut', 'w'); f.write('0123456789'); f.flush();"
           "after = lambda: [f.truncate(3), f.seek(3), f.write('after'), f.flush()]")

    def test_what_the_program_cuts_off_comes_back(self):
        self.stopped(self.CUT, "assert open('cut').read() == '0123456789'; f.write('!')")
        self.assertEqual((self.directory / "cut").read_text(), "012after")
        self.assertEqual(len(list(self.UNDO.iterdir())), 1)
        self.assertEqual(self.UNDO.stat().st_mode & 0o777, 0o700)
        self.assert_recovers()
        self.assertEqual((self.directory / "cut").read_text(), "0123456789!")
        self.assertFalse(self.UNDO.exists())  # a finished program needs it no more

    def test_what_is_cut_off_is_beside_the_pool_wherever_the_program_goes(self):
        text = WAITING.format(prepare=self.CUT + "; os.chdir('/')", finish="pass")
        keeper, target = self.start([self.commands.run, "--pool", "test.pm", "--python",
                                     self.python, self.script(text)])
        self.wait_printed("epoch")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.assertEqual(len(list(self.UNDO.iterdir())), 1)
        self.assert_recovers()
        self.assertEqual((self.directory / "cut").read_text(), "0123456789")

    def test_a_recovery_that_fails_or_is_killed_can_be_made_again(self):
        self.stopped(self.CUT, "time.sleep(600 if not os.path.exists('go') else 0)")
        wanted = self.directory / "cut"
        for _ in range(2):
            keeper, target = self.start([self.commands.recover, self.pool])
            self.wait_until(lambda: wanted.read_text() == "0123456789", "the file is back")
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            wanted.write_text("012nonsense, longer than it was")
        (self.directory / "go").touch()
        self.assert_recovers()
        self.assertEqual(wanted.read_text(), "0123456789")

    def test_what_was_cut_off_is_kept_for_the_newest_epochs(self):
        """And of older ones, which a pool may hold by the hundred, it is said that it is not."""
        self.stopped("""
    file = open("cut", "w")
    for n in range(6):
        file.write("0123456789" * 1000)
        file.flush()
        pyheap.epoch(wait=True)
        if pyheap.status()["recoveries"]:
            break
        file.seek(0)
        file.truncate()
        names = set(os.listdir("test.pm.undo"))
        assert any(name.startswith(f"{n + 1}-") for name in names), (n, names)
        file.write("y")
        file.seek(0)
        file.truncate()  # nobody needs that
        assert names >= set(os.listdir("test.pm.undo")), (n, names)""",
                     "assert file.tell() == 10000 and n == 5")
        sizes = {name.name: name.stat().st_size for name in self.UNDO.iterdir()}
        whole = [name for name, size in sizes.items() if size > 10000]
        self.assertEqual([name.split("-")[0] for name in whole], ["6"], sizes)
        self.assert_refused(self.recover("--epoch", "3"), "PH_EFILES", "cut", "newest epochs")
        self.assert_recovers("--epoch", "6")
        self.assertEqual((self.directory / "cut").read_text(), "0123456789" * 1000)

    def test_cuts_of_discarded_epochs_are_not_undone(self):
        self.stopped("f = open('cut', 'w'); f.write('0123456789'); f.flush();"
                     "pyheap.epoch(wait=True); f.truncate(4); f.seek(4); f.write('45');"
                     "f.flush(); done = pyheap.status()['recoveries'];"
                     "after = lambda: f.truncate(1)",
                     "assert open('cut').read() == '012345', open('cut').read()")
        self.assertEqual(len(list(self.UNDO.iterdir())), 2)
        # From the first epoch on: the file is as it was then, and so is what follows.
        keeper, target = self.start([self.commands.recover, "--epoch", "1", self.pool])
        self.wait_printed("recovered")
        keeper.wait(PATIENCE)
        self.assertEqual((self.directory / "cut").read_text(), "012345")

    def test_cuts_are_not_believed_if_damaged_or_of_others(self):
        self.stopped(self.CUT)
        (kept,) = self.UNDO.iterdir()
        os.truncate(self.directory / "cut", 2)
        self.UNDO.chmod(0o777)
        self.assert_refused(self.recover(), "PH_EOWNER", "test.pm.undo")
        self.UNDO.chmod(0o700)
        content = bytearray(kept.read_bytes())
        content[-20] ^= 1
        kept.write_bytes(content)
        self.assert_refused(self.recover(), "PH_EFILES", "shorter", "--keep-file")
        self.assert_recovers("--keep-file", "cut")
        self.assertEqual((self.directory / "cut").read_text(), "01")

    def test_a_full_disk_does_not_keep_a_program_from_cutting(self):
        """But recovery says that it cannot."""
        self.stopped("import resource; f = open('cut', 'w'); f.write('x' * 100000); f.flush();"
                     "signal = __import__('signal'); signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
                     "after = lambda: [resource.setrlimit(resource.RLIMIT_FSIZE, (50000, -1)),"
                     "f.truncate(3)]")
        self.assertEqual((self.directory / "cut").stat().st_size, 3)
        self.assertIn("could not be kept", self.err.read_text())
        self.assert_refused(self.recover(), "PH_EFILES", "shorter")

    def test_locks_survive_the_cut(self):
        self.stopped("""
    f = open("cut", "w"); f.write("0123456789"); f.flush()
    fcntl.lockf(f, fcntl.LOCK_EX)
    g = open("both", "w+"); g.write("0123456789"); g.flush()
    fcntl.lockf(g, fcntl.LOCK_EX)
    def after():
        f.truncate(3)
        g.truncate(3)
        with open("/proc/locks") as locks:
            print(locks.read().count(f" {os.getpid()} "), "locks")""")
        self.wait_printed("2 locks")
        self.assert_refused(self.recover(), "PH_EFILES", "cut", "shorter")  # said beforehand
        self.assertIn("could not be kept", self.err.read_text())
        self.assert_recovers("--keep-file", "cut")
        self.assertEqual((self.directory / "both").read_text(), "0123456789")
