# SPDX-License-Identifier: MIT
"""case_files - files that are kept, gone, or replaced; locks on them; databases"""
import fcntl
import os
import shutil
import signal
import subprocess
import textwrap

from commands import PATIENCE
from waiting import Waiting


class Files(Waiting):
    def test_a_kept_file_is_not_cut_back(self):
        self.stopped("f = pyheap.keep_file(open('kept', 'w')); g = open('cut', 'w');"
                     "f.write('1\\n'); g.write('1\\n'); f.flush(); g.flush();"
                     "after = lambda: [h.write('2\\n') and h.flush() for h in (f, g)]")
        self.assertEqual((self.directory / "cut").read_text(), "1\n2\n")
        self.assert_recovers()
        self.assertEqual((self.directory / "kept").read_text(), "1\n2\n")
        self.assertEqual((self.directory / "cut").read_text(), "1\n")

    def test_no_file_is_cut_if_so_asked_for(self):
        self.stopped("f = open('one', 'w'); g = open('two', 'a'); f.write('1\\n'); f.flush();"
                     "after = lambda: [h.write('2\\n') and h.flush() for h in (f, g)]",
                     "g.write('3\\n'); g.flush()")
        self.assert_recovers("--keep-files")
        self.assertEqual((self.directory / "one").read_text(), "1\n2\n")
        self.assertEqual((self.directory / "two").read_text(), "2\n3\n")

    def test_a_directory_that_was_listed_is_listed_again(self):
        """At its end or in its middle, and then from the start: as the kernel counts."""
        many = self.directory / "many"
        many.mkdir()
        for n in range(500):
            (many / str(n)).touch()
        self.stopped("""
    import ctypes
    libc = ctypes.CDLL(None)
    def part(fd, size):
        return libc.syscall(217, fd, ctypes.create_string_buffer(size), size)  # getdents64
    def rest(fd):
        return sum(iter(lambda: part(fd, 65536), 0))
    fds = [os.open("many", os.O_RDONLY) for _ in range(3)]
    whole, some = rest(fds[0]), part(fds[1], 4096)""", """
    assert [rest(fd) for fd in fds] == [0, whole - some, whole]
    for fd in fds:
        os.lseek(fd, 0, os.SEEK_SET)
        assert rest(fd) == whole""")
        self.assert_recovers()

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

    def test_what_was_overwritten_in_the_middle_unseen_is_told(self):
        """By a child: nothing brings it back, but nobody shall believe so. Of what the program
        overwrites, or appends, nothing is said."""
        by_child = "os.system('printf xyz | dd of=file bs=1 seek=2 conv=notrunc status=none')"
        by_itself = "f.write('xyz') and f.flush()"
        for after, at, told in ((by_child, 2, True), (by_itself, 2, False),
                                (by_itself, 10, False), ("0", 2, False)):
            with self.subTest(after):
                for path in (self.directory / "test.pm", self.out):
                    path.unlink(missing_ok=True)
                self.stopped("open('file', 'w').write('0123456789'); f = open('file', 'r+');"
                             f"f.seek({at}); after = lambda: {after}")
                said = self.assert_recovers().stderr
                self.assertEqual("overwritten" in said, told, said)
                self.assertEqual((self.directory / "file").read_text(),
                                 "01xyz56789" if told else "0123456789")

    def test_an_open_file_that_was_removed_is_named(self):
        self.stopped("f = open('gone', 'w'); f.write('x'); f.flush()")
        os.remove(self.directory / "gone")
        self.assert_refused(self.recover(), "PH_EFILES", "gone", "removed since", "--epoch")


class Calls(Waiting):
    """pyhook/calls.h: what the kernel is not asked for in every one of many epochs a second"""

    def test_limits_and_timers_that_are_set_between_epochs(self):
        self.stopped("""
    import ctypes, resource
    libc = ctypes.CDLL(None)
    def timers():
        with open("/proc/self/timers") as file:
            return sum(line.startswith("ID: ") for line in file)
    for _ in range(3):
        pyheap.epoch(wait=True)
    timer = ctypes.c_void_p()
    assert libc.timer_create(time.CLOCK_MONOTONIC, None, ctypes.byref(timer)) == 0
    resource.setrlimit(resource.RLIMIT_CPU, (100000, 200000))
    pyheap.epoch(wait=True)
    resource.prlimit(0, resource.RLIMIT_FSIZE, (1 << 40, 1 << 41))""", """
    print(timers(), resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_FSIZE))""")
        self.assertIn(f"1 {(100000, 200000)} {(1 << 40, 1 << 41)}\n", self.assert_recovers().stdout)

    def test_signal_actions_that_change_between_epochs(self):
        """SIGUSR1 is caught once, then the kernel itself sets the default."""
        self.stopped("""
    import ctypes, signal
    libc = ctypes.CDLL(None)
    def told(mask):
        with open("/proc/self/status") as file:
            bits = int(next(line for line in file if line.startswith(mask)).split()[1], 16)
        return [n for n in range(1, 32) if bits >> (n - 1) & 1]
    once = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)
    libc.sysv_signal(signal.SIGUSR1, once)
    for _ in range(3):
        pyheap.epoch(wait=True)
    assert signal.SIGUSR1 in told("SigCgt")
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    pyheap.epoch(wait=True)
    os.kill(os.getpid(), signal.SIGUSR1)
    ignored, caught = told("SigIgn"), told("SigCgt")
    assert signal.SIGUSR1 not in caught and signal.SIGUSR2 in ignored""", """
    assert told("SigIgn") == ignored and told("SigCgt") == caught""")
        self.assert_recovers()


    def test_mappings_that_change_between_epochs(self):
        """The kernel is not asked in every epoch about those that may not be written to."""
        changed, gone = "r--p", None
        for call, page, there in (
                ("call('mprotect', at(20), PAGE, READ)", 20, changed),
                ("call('pkey_mprotect', at(20), PAGE, READ, -1)", 20, changed),
                ("call('syscall', SYS_mprotect, at(20), PAGE, READ)", 20, changed),
                ("call('munmap', at(20), PAGE)", 20, gone),
                ("call('syscall', SYS_munmap, at(20), PAGE, 0)", 20, gone),
                ("call('mremap', at(20), 44 * PAGE, 43 * PAGE, 0) - at(20)", 63, gone),
                ("call('mmap', at(20), PAGE, READ, FIXED, -1, 0) - at(20)", 20, changed)):
            with self.subTest(call):
                for path in (self.directory / "test.pm", self.out):
                    path.unlink(missing_ok=True)
                self.stopped(f"""
    import ctypes, mmap
    READ, PAGE = mmap.PROT_READ, mmap.PAGESIZE
    FIXED = 0x10 | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    SYS_mprotect, SYS_munmap = 10, 11
    def call(name, *a):
        function = ctypes.CDLL(None)[name]
        function.restype = ctypes.c_void_p
        return function(*map(ctypes.c_void_p, a)) or 0
    start = call("mmap", None, 64 * PAGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    def at(page):
        return start + page * PAGE
    def protection(page):
        with open("/proc/self/maps") as file:
            for line in file:
                bounds, protection = line.split()[:2]
                first, last = (int(x, 16) for x in bounds.split("-"))
                if first <= at(page) < last:
                    return protection
    assert call("mprotect", at(0), PAGE, READ) == 0 and protection({page}) == "---p"
    for _ in range(30):
        pyheap.epoch(wait=True)
    assert {call} == 0""", f"""
    assert protection({page}) == {there!r}, protection({page})""")
                self.assert_recovers()


class Locks(Waiting):
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

    def test_a_lock_on_a_file_that_was_known_without(self):
        """By each of libc's calls, by a child that shares the description, and in the end by a
        system call that nobody sees: that one may take a second."""
        known = "f = open('locked', 'w'); [pyheap.epoch(wait=True) for _ in range(3)];"
        unseen = "libc.syscall(73, f.fileno(), fcntl.LOCK_EX)"  # flock
        for taken in ("fcntl.flock(f, fcntl.LOCK_EX)", "fcntl.lockf(f, fcntl.LOCK_EX)",
                      "libc.lockf(f.fileno(), 1, 0)",
                      "fcntl.fcntl(f, 37, struct.pack('hhlli', fcntl.F_WRLCK, 0, 0, 0, 0))",
                      "subprocess.run(['flock', str(f.fileno())], pass_fds=[f.fileno()], check=True)",
                      unseen + "; pyheap.epoch(); time.sleep(1.1)"):
            with self.subTest(taken):
                for path in (self.directory / "test.pm", self.out):
                    path.unlink(missing_ok=True)
                self.stopped("import ctypes, struct, subprocess; libc = ctypes.CDLL(None);" + known + taken,
                             "with open('/proc/locks') as locks: print(' WRITE ' in"
                             " ''.join(l for l in locks if f':{os.stat(\"locked\").st_ino} ' in l))")
                self.assertIn("True\n", self.assert_recovers().stdout)

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

    def test_a_lock_on_a_directory(self):
        """It is taken again; while another process has it, recovery refuses."""
        lock = "fcntl.flock({}, fcntl.LOCK_EX | fcntl.LOCK_NB)"
        self.stopped("os.mkdir('locked'); d = os.open('locked', os.O_RDONLY);" + lock.format("d"),
                     "e = os.open('locked', os.O_RDONLY)\n"
                     f"    try: {lock.format('e')}\n"
                     "    except BlockingIOError: print('locked')")
        mine = os.open(self.directory / "locked", os.O_RDONLY)
        fcntl.flock(mine, fcntl.LOCK_EX)
        self.assert_refused(self.recover(), "PH_EFILES", "locked", "another process")
        os.close(mine)
        self.assertIn("locked\n", self.assert_recovers().stdout)

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


class Databases(Waiting):
    DATABASE = ("db = sqlite3.connect('data.db', isolation_level=None);"
                "db.execute('PRAGMA journal_mode = {mode}');"
                "db.execute('CREATE TABLE IF NOT EXISTS t (k PRIMARY KEY, v)');"
                "db.execute('INSERT INTO t VALUES (1, 1)');")
    GROW = ("[db.execute('BEGIN'), db.executemany('INSERT OR REPLACE INTO t VALUES (?, 5)', "
            "[(i,) for i in range(2, 9999)]), db.execute('COMMIT')]")

    def test_a_database_that_grew_after_the_epoch_stays_whole(self):
        for mode in ("DELETE", "TRUNCATE", "PERSIST", "WAL"):
            with self.subTest(mode):
                self.start_anew()
                self.stopped(self.DATABASE.format(mode=mode) + f"after = lambda: {self.GROW}",
                             f"{self.GROW}; n = db.execute('SELECT count(*), sum(v) FROM t')"
                             ".fetchone(); assert n == (9998, 1 + 5 * 9997), n; "
                             "n = db.execute('PRAGMA integrity_check').fetchone();"
                             "assert n == ('ok',), n")
                self.assertIn("SQLite", self.assert_recovers().stderr)

    def start_anew(self):
        for path in self.directory.glob("*.*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def test_a_database_changed_since_an_epoch_in_a_transaction_is_refused(self):
        for mode in ("DELETE", "WAL"):
            with self.subTest(mode):
                self.start_anew()
                self.stopped(self.DATABASE.format(mode=mode) + "db.execute('BEGIN');"
                             "db.execute('INSERT INTO t VALUES (2, 2)');"
                             "after = lambda: db.execute('COMMIT')")
                self.assert_refused(self.recover(), "PH_EFILES", "data.db", "transaction",
                                    "--epoch")

    def test_an_open_transaction_goes_on(self):
        for mode in ("DELETE", "WAL"):
            with self.subTest(mode):
                self.start_anew()
                self.stopped(self.DATABASE.format(mode=mode) + "db.execute('BEGIN');"
                             "db.execute('INSERT INTO t VALUES (2, 2)')",
                             "db.execute('COMMIT'); n = db.execute('SELECT sum(v) FROM t')"
                             ".fetchone(); assert n == (3,), n; "
                             "n = db.execute('PRAGMA integrity_check').fetchone();"
                             "assert n == ('ok',), n")
                done = self.assert_recovers()
                self.assertNotIn("SQLite", done.stderr)


class Replaced(Waiting):
    """A file's name leads to another file by the time of the recovery, or to none."""

    LOG = ("f = open('log', '{mode}'); f.write('before\\n'); f.flush();"
           "after = lambda: [f.write('after\\n'), f.flush()]")
    GO_ON = "f.write('again\\n'); f.flush()"

    def log_stopped(self, mode="a", more=""):
        self.stopped(self.LOG.format(mode=mode) + more, self.GO_ON)
        self.log = self.directory / "log"
        self.assertEqual(self.log.read_text(), "before\nafter\n")

    def test_a_rotated_log_is_gone_on_with_under_its_new_name(self):
        for mode in "a", "w", "r+":
            with self.subTest(mode):
                for path in (self.directory / "test.pm", self.out):
                    path.unlink(missing_ok=True)
                (self.directory / "log").write_text("")
                self.log_stopped(mode)
                self.log.rename(self.directory / "log.1")
                self.log.write_text("others', and longer than the program's\n")
                said = self.assert_recovers().stderr
                self.assertIn("another name by now", said)
                self.assertIn("log.1", said)
                self.assertEqual((self.directory / "log.1").read_text(), "before\nagain\n")
                self.assertEqual(self.log.read_text(),
                                 "others', and longer than the program's\n")

    def test_a_rotated_log_in_a_chain(self):
        """Renamed again and again, between recoveries and while the program runs."""
        text = """
            import os, sys, time
            import pyheap
            log = open("log", "a")
            for n in range(6):
                print(n, file=log, flush=True)
                pyheap.epoch(wait=True)
                print("lost", file=log, flush=True)
                if n == pyheap.status()["recoveries"]:
                    print("stopped", n, flush=True)
                    time.sleep(600)
                log.seek(log.tell() - 5)
                log.truncate()
            print("recovered")
        """
        argv = self.argv(text)
        name = "log"
        for n in range(6):
            keeper, target = self.start(argv)
            self.wait_printed(f"stopped {n}")
            if n % 2:
                (self.directory / name).rename(self.directory / f"log.{n}")
                name = f"log.{n}"
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            if not n % 2:
                (self.directory / name).rename(self.directory / f"log.{n}")
                name = f"log.{n}"
            (self.directory / "log").write_text("others'")
            argv = [self.commands.recover, self.pool]
        self.assert_ended(self.finish(argv))
        self.assertEqual((self.directory / name).read_text(), "0\n1\n2\n3\n4\n5\n")
        self.assertEqual((self.directory / "log").read_text(), "others'")

    def test_what_was_cut_off_comes_back_under_the_new_name(self):
        self.stopped("f = open('log', 'w'); f.write('0123456789'); f.flush();"
                     "after = lambda: f.truncate(3)", "f.write('!')")
        (self.directory / "log").rename(self.directory / "log.1")
        (self.directory / "log").write_text("others")
        self.assert_recovers()
        self.assertEqual((self.directory / "log.1").read_text(), "0123456789!")
        self.assertEqual((self.directory / "log").read_text(), "others")

    def test_a_stranger_is_not_cut(self):
        """Not one of the same length, nor one that has got the inode's number."""
        for text in "short", "another file, and longer\n", "afterr\nbefore\n":
            with self.subTest(text):
                for path in (self.directory / "test.pm", self.out, self.directory / "log"):
                    path.unlink(missing_ok=True)
                self.log_stopped()
                self.log.unlink()
                self.log.write_text(text)
                self.assert_refused(self.recover(), "PH_EFILES", "log", "another file",
                                    "--keep-file")
                self.assertEqual(self.log.read_text(), text)
                self.assert_recovers("--keep-file", "log")
                self.assertEqual(self.log.read_text(), text + "again\n")

    def test_with_a_stranger_the_program_goes_on_at_its_end(self):
        self.log_stopped("w")
        self.log.unlink()
        self.log.write_text("0\n")
        self.assert_recovers("--keep-file", "log")
        self.assertEqual(self.log.read_text(), "0\nagain\n")

    def test_an_input_that_was_replaced_is_not_read_on(self):
        data = self.directory / "data"
        data.write_text("one\ntwo\nthree\n")
        self.stopped("f = open('data'); f.readline()", "print(f.read())")
        data.rename(self.directory / "data.old")
        data.write_text("ONE\nTWO\nTHREE\n")
        self.assertIn("two\nthree", self.assert_recovers().stdout)  # buffered, even so
        self.out.unlink()
        os.unlink(self.pool)
        self.stopped("f = open('data', 'rb', 0); f.readline()", "print(f.read())")
        data.unlink()
        data.write_text("1\n2\n3\n4\n5\n6\n7\n8\n")
        self.assert_refused(self.recover(), "PH_EFILES", "data", "another file")

    def test_a_file_that_was_brought_back_is_known_by_its_content(self):
        self.log_stopped()
        text = self.log.read_text()
        self.log.unlink()
        self.log.write_text(text)
        self.assertNotIn("another", self.assert_recovers().stderr)
        self.assertEqual(self.log.read_text(), "before\nagain\n")

    def test_a_directory_that_was_copied(self):
        """To where everything has other inodes; with what was cut off, too."""
        self.stopped("f = open('log', 'w'); f.write('0123456789'); f.flush();"
                     "g = open('cut', 'w'); g.write('0123456789'); g.flush();"
                     "h = open('empty', 'w');"
                     "after = lambda: [f.write('after'), f.flush(), g.truncate(2)]",
                     "f.write('!'); g.write('!')")
        was = self.directory.with_name(self.directory.name + ".was")
        self.directory.rename(was)
        self.addCleanup(shutil.rmtree, was, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", was, self.directory], check=True)
        self.assert_recovers()
        self.assertEqual((self.directory / "log").read_text(), "0123456789!")
        self.assertEqual((self.directory / "cut").read_text(), "0123456789!")

    def test_what_was_not_open_and_the_output_of_a_copied_directory(self):
        self.stopped("""
    def after():
        open('log', 'a').write('2\\n')
        open('n', 'w').write(open('list').read() + 'b')
        open('list', 'w').write(open('n').read())
    for name in ('n', 'list'):
        open(name, 'w').write('a')
    open('log', 'w').write('1\\n')
    print('before', flush=True)""", "after()")
        was = self.directory.with_name(self.directory.name + ".was")
        self.directory.rename(was)
        self.addCleanup(shutil.rmtree, was, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", was, self.directory], check=True)
        keeper, _ = self.start([self.commands.recover, self.pool])
        self.assertEqual(keeper.wait(PATIENCE), 0)
        self.assertEqual(self.out.read_text(), "before\nrecovered\n")
        for name, text in {"n": "ab", "list": "ab", "log": "1\n2\n"}.items():
            self.assertEqual((self.directory / name).read_text(), text)

    def test_of_a_cut_file_a_stranger_is_none(self):
        """What was cut off is put back into the file that had it, and no other."""
        self.stopped("f = open('log', 'w'); f.write('0123456789'); f.flush();"
                     "after = lambda: f.truncate(3)")
        os.remove(self.directory / "log")
        (self.directory / "log").write_text("others'")
        self.assert_refused(self.recover(), "PH_EFILES", "log", "another file")
        self.assert_recovers("--keep-file", "log")
        self.assertEqual((self.directory / "log").read_text(), "others'")

    def test_a_mapped_file_under_another_name(self):
        (self.directory / "data").write_bytes(bytes(8192))
        self.stopped("import mmap; f = open('data', 'r+b'); m = mmap.mmap(f.fileno(), 0);"
                     "m[0:4] = b'mine'", "m[4096:4100] = b'mine'; m.flush()")
        (self.directory / "data").rename(self.directory / "data.1")
        (self.directory / "data").write_bytes(b"x" * 8192)
        self.assert_recovers()
        self.assertEqual((self.directory / "data").read_bytes(), b"x" * 8192)
        self.assertEqual((self.directory / "data.1").read_bytes().count(b"mine"), 2)

    def test_what_a_java_machine_shows_to_others_may_be_gone(self):
        # Any other Java machine removes this file, once the process of this number is gone.
        shown = self.directory / "hsperfdata_root" / "4711"
        shown.parent.mkdir()
        shown.write_bytes(bytes(32768))
        # By libc's mmap: Python's own keeps a descriptor, as Java does not.
        self.stopped(f"import ctypes, mmap; f = open({str(shown)!r}, 'r+b');"
                     "call = ctypes.CDLL(None).mmap; call.restype = ctypes.c_void_p;"
                     "at = call(None, ctypes.c_size_t(32768), mmap.PROT_READ | mmap.PROT_WRITE,"
                     "mmap.MAP_SHARED, f.fileno(), ctypes.c_size_t(0)); f.close();"
                     "m = (ctypes.c_char * 32768).from_address(at); m[5000:5004] = b'mine'",
                     "assert m[5000:5004] == b'mine' and not any(m[:5000]); m[9:10] = b'x'")
        shown.unlink()
        self.assert_recovers()
        self.assertFalse(shown.exists())


class Renamed(Waiting):
    """Files that the program itself renames or removes after the epoch."""

    UNDO = property(lambda self: self.directory / "test.pm.undo")
    OPEN = "f = open('file', 'w'); f.write('1\\n'); f.flush();"

    def texts(self):
        return {path.name: path.read_text() for path in self.directory.iterdir()
                if path.is_file() and path.suffix not in (".pm", ".py", ".txt")}

    def test_names_come_back(self):
        for what in ("os.rename('file', 'other')", "os.remove('file')",
                     "os.rename('file', 'file.1'); open('file', 'w').write('lost')",
                     "open('new', 'w').write('new'); os.replace('new', 'file')",
                     "os.mkdir('d'); os.renames('file', 'd/file')",
                     "open('file.1', 'w').write('older'); pyheap.epoch(wait=True);"
                     "os.remove('file.1'); os.rename('file', 'file.1')"):
            with self.subTest(what):
                for path in self.directory.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                first, _, then = what.rpartition("pyheap.epoch(wait=True);")
                self.stopped(self.OPEN + first +
                             f"after = lambda: exec({then + '; f.write(chr(50)); f.flush()'!r})",
                             "f.write('3\\n')")
                self.assertNotIn("file", self.texts() if "lost" not in what and "new" not in what
                                 else {}, "it was to have another name")
                said = self.assert_recovers().stderr
                self.assertNotIn("another", said)
                wanted = {"file": "1\n3\n"}
                if first:
                    wanted["file.1"] = "older"
                self.assertEqual({k: v for k, v in self.texts().items() if k != "new"}, wanted)
                self.assertFalse(self.UNDO.exists())

    def test_a_name_that_somebody_else_has_taken_stays_theirs(self):
        older = self.directory / "older"
        older.write_text("others'")
        self.stopped(self.OPEN + "after = lambda: os.rename('file', 'file.1')", "f.write('2\\n')")
        older.rename(self.directory / "file")
        self.assert_recovers()
        self.assertEqual(self.texts(), {"file": "others'", "file.1": "1\n2\n"})

    def test_a_kept_file_keeps_its_new_name(self):
        self.stopped(self.OPEN + "after = lambda: os.rename('file', 'file.1')", "f.write('2\\n')")
        self.assert_recovers("--keep-file", "*/file")
        self.assertEqual(self.texts(), {"file.1": "1\n2\n"})

    def test_a_file_that_goes_while_it_is_open_is_in_the_next_epoch(self):
        """The link by which it is kept is no name."""
        self.stopped("f = open('file', 'w+'); f.write('1\\n'); f.flush(); pyheap.epoch();"
                     "os.remove('file'); pyheap.epoch()", "f.seek(0); print(f.read())")
        self.assertNotIn("cannot come back", self.err.read_text())
        self.assertIn("1\n", self.assert_recovers().stdout)
        self.assertEqual(self.texts(), {})

    def test_what_no_epoch_needs_any_more_is_not_kept(self):
        done = self.run_program("""
            import os, pyheap
            for n in range(20):
                with open(f"file-{n}", "w") as file:
                    file.write("x" * 10000)
                    pyheap.epoch(wait=True)
                    os.remove(file.name)
                with open("not-open", "w"):
                    pass
                os.rename("not-open", "not")
                os.remove("not")
            found = sorted(os.listdir("test.pm.undo"))
            assert 1 <= len([name for name in found if name.endswith(".file")]) <= 3, found
        """)
        self.assert_ended(done)
        self.assertFalse(self.UNDO.exists())

    def test_a_chain_of_recoveries_that_are_killed(self):
        self.stopped(self.OPEN + "after = lambda: [os.rename('file', 'file.1'), os.remove('file.1')]",
                     "time.sleep(600 if not os.path.exists('go') else 0); f.write('2\\n')")
        for _ in range(3):
            keeper, target = self.start([self.commands.recover, self.pool])
            self.wait_until(lambda: self.texts() == {"file": "1\n"}, "the file is back")
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
        (self.directory / "go").touch()
        self.assert_recovers()
        self.assertEqual(self.texts(), {"file": "1\n2\n", "go": ""})
