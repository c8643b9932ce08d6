# SPDX-License-Identifier: MIT
"""case_redone - files that the program changes, makes, renames and removes after the epoch"""
import os
import signal
import stat

from case import HERE
from commands import PATIENCE
from denied import denying
from waiting import Waiting


class Redone(Waiting):
    """What is done after the epoch is done again, and has then happened once."""
    UNDO = property(lambda self: self.directory / "test.pm.undo")

    def redo(self, prepare, do, finish="pass"):
        """`do` is done before three kills, and once more by the program that ends."""
        do = "\n".join("        " + line for line in do.strip().splitlines())
        self.stopped(f"{prepare}\n    def after():\n{do}\n", f"""
    after()
    if not os.path.exists("go"):
        print("again", 2 if os.path.exists("life1") else 1, flush=True)
        time.sleep(600)
    {finish}""")
        for life in range(1, 3):
            keeper, target = self.start([self.commands.recover, self.pool])
            self.wait_printed(f"again {life}")
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            (self.directory / f"life{life}").touch()
        (self.directory / "go").touch()
        self.assert_recovers()

    def text(self, name):
        return (self.directory / name).read_text()

    APPEND = """
for n in range(3):
    with open('log', 'a') as f:
        f.write(f'line {n}\\n')"""

    def test_lines_appended_by_opening_for_each(self):
        self.redo("open('log', 'w').write('before\\n')", self.APPEND)
        self.assertEqual(self.text("log"), "before\nline 0\nline 1\nline 2\n")

    def test_lines_appended_to_a_file_that_is_being_read(self):
        self.redo("open('log', 'w').write('before\\n'); reader = open('log')", """
with open('log', 'a') as f:
    f.write('line\\n')
assert reader.read() == 'before\\nline\\n'""")
        self.assertEqual(self.text("log"), "before\nline\n")

    def test_a_file_made_to_append_to(self):
        self.redo("pass", self.APPEND)
        self.assertEqual(self.text("log"), "line 0\nline 1\nline 2\n")

    def test_a_file_that_is_read_and_rewritten(self):
        self.redo("open('n', 'w').write('5')",
                  "n = int(open('n').read())\nopen('n', 'w').write(str(n + 1))",
                  "assert open('n').read() == '6'")
        self.assertEqual(self.text("n"), "6")

    def test_files_directories_and_links_that_are_made(self):
        self.redo("pass", """
os.mkdir('d')
os.mkdir('d/e', 0o750)
with open('d/e/f', 'x') as f:
    f.write('once')
os.symlink('f', 'd/e/s')
os.link('d/e/f', 'd/g')
os.mkfifo('d/p')
os.mknod('d/n')
import socket
with socket.socket(socket.AF_UNIX) as server:
    server.bind('d/socket')
assert sorted(os.listdir('d')) == ['e', 'g', 'n', 'p', 'socket'] and os.listdir('d/e') in (['f', 's'], ['s', 'f'])""")
        self.assertEqual(self.text("d/e/s"), "once")

    def test_files_directories_and_links_that_are_removed(self):
        self.redo("""
    os.makedirs('d/e', 0o750)
    open('d/e/f', 'w').write('content')
    os.symlink('nowhere', 'd/s')
    os.mkfifo('d/p')
    import socket
    socket.socket(socket.AF_UNIX).bind('d/socket')""", """
assert open('d/e/f').read() == 'content' and os.stat('d/e').st_mode & 0o777 == 0o750
os.remove('d/e/f')
assert os.readlink('d/s') == 'nowhere'
os.unlink('d/s')
os.unlink('d/p')
os.unlink('d/socket')
os.rmdir('d/e')
os.rmdir('d')""")
        self.assertFalse((self.directory / "d").exists())

    def test_what_goes_with_a_directory_that_was_made_since(self):
        self.redo("""
    os.mkdir('old', 0o750)
    open('file', 'w').write('content')""", """
os.mkdir('new')
os.rename('file', 'new/file')
os.rename('old', 'new/old')
os.rename('new', 'newer')
assert open('newer/file').read() == 'content'
assert os.stat('newer/old').st_mode & 0o777 == 0o750
os.remove('newer/file')
os.rmdir('newer/old')
os.rmdir('newer')
os.mkdir('new')""")
        self.assertEqual(os.listdir(self.directory / "new"), [])
        self.assertFalse((self.directory / "file").exists() or (self.directory / "old").exists())

    def test_an_open_fifo_that_is_renamed_and_removed(self):
        self.redo("""
    os.mkfifo('p')
    reader, writer = os.open('p', os.O_RDONLY | os.O_NONBLOCK), os.open('p', os.O_WRONLY)
    os.mkdir('d')
    os.write(writer, b'abc')""", """
os.rename('p', 'd/q')
os.rename('d', 'e')
assert os.read(reader, 9) == b'abc'
again = os.open('e/q', os.O_WRONLY)
os.write(again, b'def')
assert os.read(reader, 9) == b'def'
os.unlink('e/q')""")

    def test_a_fifo_where_something_is_to_be_put_aside(self):
        """It would wait for a reader; nothing else is lost by it."""
        self.stopped("open('log', 'w').write('x')\n    def after():\n        open('log', 'a').write('y')")
        for number in range(1, 9):
            os.mkfifo(self.UNDO / f"1-{number}.aside")
        self.assert_recovers()
        self.assertEqual(self.text("log"), "x")

    def test_files_that_are_replaced_at_once(self):
        self.redo("open('state', 'w').write('0')", """
for n in range(3):
    assert open('state').read() == str(n)
    with open('state.new', 'x') as f:
        f.write(str(n + 1))
    os.replace('state.new', 'state')""")
        self.assertEqual(self.text("state"), "3")

    def test_files_that_are_renamed_where_nothing_is(self):
        """By a call that fails otherwise."""
        self.redo("import ctypes; libc = ctypes.CDLL(None); open('a', 'w').close(); open('c', 'w').close()", """
assert libc.renameat2(-100, b'a', -100, b'c', 1) == -1
assert libc.renameat2(-100, b'a', -100, b'b', 1) == 0""")
        self.assertEqual((os.path.exists(self.directory / "a"), os.path.exists(self.directory / "b")), (False, True))

    def test_files_that_are_mapped_and_not_open(self):
        """And are renamed, removed or replaced: what is mapped is still the same."""
        self.redo("""
    import ctypes
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    def mapped(name, flags):
        with open(name, 'rb') as file:
            return libc.mmap(None, ctypes.c_size_t(4096), 1, flags, file.fileno(), ctypes.c_long(0))
    places = []
    for name in 'replaced', 'removed', 'renamed':
        with open(name, 'w') as file:
            file.write(name * 1000)
        places += [(name, mapped(name, flags)) for flags in (1, 2)]
    def check():
        for name, place in places:
            found = ctypes.string_at(place, len(name))
            assert found == name.encode(), (name, found)""", """
check()
with open('new', 'w') as file:
    file.write('another' * 1000)
os.replace('new', 'replaced')
os.remove('removed')
os.rename('renamed', 'other')""", "check()")

    def test_directories_that_are_renamed(self):
        self.redo("os.mkdir('new'); open('new/f', 'w').write('x')", """
with open('new/f', 'a') as f:
    f.write('y')
os.rename('new', 'done')
with open('done/f', 'a') as f:
    f.write('z')
os.mkdir('new')""")
        self.assertEqual(self.text("done/f"), "xyz")

    def test_open_files_in_directories_that_are_renamed(self):
        self.redo("""
    os.makedirs('a/b')
    file = open('a/b/file', 'w+')
    gone = open('a/b/gone', 'w+')
    directory = os.open('a/b', os.O_RDONLY)""", """
file.write('line\\n')
os.rename('a/b', 'c')
os.rename('a', 'd')
os.rename('c', 'd/e')
gone.write('bye')
gone.flush()
file.flush()
os.remove('gone', dir_fd=directory)
with open('d/e/file', 'r') as again:
    assert again.read() == 'line\\n'
assert os.listdir(directory) == ['file']""")
        self.assertEqual(self.text("d/e/file"), "line\n")

    def test_open_directories_that_are_removed(self):
        """One of them half read, locked, or made again by the program; with duplicates."""
        self.redo("""
    os.makedirs('d/e')
    for name in 'abc':
        open(f'd/e/{name}', 'w').close()
    half = os.scandir('d/e')
    first = next(half).name
    top = os.open('d', os.O_RDONLY)
    double = os.dup(top)
    place = os.open('d/e', os.O_PATH)
    fcntl.flock(top, fcntl.LOCK_EX)""", """
assert sorted([first, *(entry.name for entry in half)]) == ['a', 'b', 'c']
assert os.listdir(top) == os.listdir(double) == ['e']
os.lseek(top, 0, 0)
assert os.path.samefile(top, double) and os.path.samefile(top, 'd')
assert sorted(os.listdir(f'/proc/self/fd/{place}')) == ['a', 'b', 'c']
other = os.open('d', os.O_RDONLY)
try:
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    os.close(other)
else:
    raise SystemExit('it is not locked')
for name in 'abc':
    os.remove(f'e/{name}', dir_fd=top)
os.rename('d/e', 'd/f')
os.rmdir('f', dir_fd=top)
os.rmdir('d')
os.mkdir('d')
open('d/new', 'w').close()""")
        self.assertEqual(os.listdir(self.directory / "d"), ["new"])

    def test_the_working_directory_is_renamed(self):
        self.redo("os.makedirs('v/w'); home = os.getcwd(); os.chdir('v/w')", """
assert os.getcwd() == home + '/v/w'
with open('file', 'x') as f:
    f.write('x')
os.rename(home + '/v', home + '/u')
os.mkdir(home + '/v')
os.chdir(home)""")
        self.assertEqual(self.text("u/w/file"), "x")

    def test_the_working_directory_is_removed(self):
        self.redo("os.makedirs('v/w'); home = os.getcwd(); os.chdir('v/w')", """
assert os.getcwd() == home + '/v/w' and os.listdir() == []
os.rmdir(home + '/v/w')
os.rmdir(home + '/v')
os.chdir(home)""")
        self.assertFalse((self.directory / "v").exists())

    def test_a_directory_that_goes_and_comes_over_several_epochs(self):
        """Each is another inode; what was done to it before is undone as well."""
        self.stopped("""
    os.mkdir("old")
    pyheap.epoch(wait=True)
    if pyheap.status()["recoveries"]:
        assert os.listdir("old") == [] and not os.path.exists("d")
        print("recovered")
        sys.exit(0)
    os.mkdir("d")
    os.rename("d", "e")
    os.rmdir("old")
    pyheap.epoch(wait=True)
    def after():
        os.rmdir("e")
        os.mkdir("e")
        os.mkdir("old")
        os.rename("old", "e/old")""", options=("--keep", "3"))
        self.assert_recovers("--epoch", "1")
        self.assertNotIn("e", os.listdir(self.directory))

    def test_a_recovery_to_an_older_epoch_that_ends_half_way(self):
        """The files are then on their way to that epoch, so it is the one that is gone on from."""
        self.stopped("""
    os.mkdir("d")
    pyheap.epoch(wait=True)
    if pyheap.status()["recoveries"]:
        assert os.listdir("d") == [] and not os.path.exists("f")
        print("recovered")
        sys.exit(0)
    os.rmdir("d")
    f = open("f", "x")
    print("text", file=f, flush=True)""", options=("--keep", "3"))
        argv = [self.commands.recover, "--epoch", "1", self.pool]
        self.assert_refused(self.finish(argv, preexec_fn=denying("mkdir")), "PH_EFILES", "try again")
        self.assert_recovers()

    def test_an_older_epoch_than_the_one_before(self):
        """What was done to files before the last death is undone, and what before the one before."""
        self.stopped("""
    f = open("f", "x+")
    print("text", file=f, flush=True)
    pyheap.epoch(wait=True)
    if pyheap.status()["recoveries"]:
        assert open("f").read() == "text\\n" and not os.path.exists("d")
        print("recovered")
        sys.exit(0)
    os.remove("f")
    def after():
        os.mkdir("d")""", """
    after()
    print("again", flush=True)
    time.sleep(600)""", options=("--keep", "3"))
        keeper, target = self.start([self.commands.recover, self.pool])
        self.wait_printed("again")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.assert_recovers("--epoch", "1")

    def test_an_epoch_that_was_gone_on_from_without_a_change(self):
        """The life that went on from it took its next epoch before it did anything to files, so no
        note of it tells that what was done before has been undone."""
        text = """
            import os, signal, pyheap
            removed, renamed = open("removed", "x+"), open("1", "x+")
            print("text", file=removed, flush=True)
            pyheap.epoch(wait=True)
            if os.path.exists("life1"):
                pyheap.epoch(wait=True)
            if not os.path.exists("life2"):
                os.remove("removed")
                os.rename("1", "2")
                os.kill(os.getpid(), signal.SIGKILL)
            print(open("removed").read(), os.path.samefile("1", renamed.fileno()), os.path.exists("2"))
        """
        self.assert_killed(self.run_program(text, options=("--keep", "3")).returncode, signal.SIGKILL)
        (self.directory / "life1").touch()
        self.assert_killed(self.recover().returncode, signal.SIGKILL)
        (self.directory / "life2").touch()
        done = self.recover("--epoch", "1")
        self.assert_ended(done)
        self.assertEqual(done.stdout, "text\n True False\n")

    def test_bytes_that_are_overwritten(self):
        """In a file that is held open, one that is opened for it, and by each of the calls."""
        self.redo("""
    size = 3 << 20
    for name in ('held', 'opened', 'stream'):
        open(name, 'wb').write(bytes(size))
    held = os.open('held', os.O_RDWR)
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fopen.restype = ctypes.c_void_p
    def add(fd, at):
        n = os.pread(fd, 1, at)[0] + 1
        return bytes([n])""", """
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
for fd in (held, os.open('opened', os.O_RDWR)):
    os.pwrite(fd, add(fd, 5), 5)
    os.lseek(fd, size // 2, 0)
    os.write(fd, add(fd, size // 2))
    os.pwritev(fd, [add(fd, 7), add(fd, 8)], 7)
    os.lseek(fd, size - 1, 0)
    os.writev(fd, [add(fd, size - 1), b'end'])
    assert os.fstat(fd).st_size == size + 3
f = libc.fopen(b'stream', b'r+')
c = libc.fgetc(ctypes.c_void_p(f))
libc.rewind(ctypes.c_void_p(f))
libc.fputc(c + 1, ctypes.c_void_p(f))
libc.fclose(ctypes.c_void_p(f))""")
        for name in ("held", "opened"):
            content = (self.directory / name).read_bytes()
            self.assertEqual([content[at] for at in (5, 7, 8, 3 << 19, (3 << 20) - 1)], [1] * 5)
            self.assertEqual(content[3 << 20:], b"end")
            self.assertEqual(sum(content[:3 << 20]), 5)
        self.assertEqual((self.directory / "stream").read_bytes()[:2], b"\1\0")

    def test_bytes_that_are_overwritten_by_the_kernel_alone(self):
        """From another file, by zeros, and by what comes behind them, which moves."""
        names = ("copied", "sent", "punched", "moved")
        self.redo(f"""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    for name in {names}:
        open(name, 'wb').write(b'a' * 4096 + b'b' * 8192)
    open('source', 'wb').write(b'c' * 100)
    held = [os.open(name, os.O_RDWR) for name in {names}]
    source = os.open('source', os.O_RDONLY)
    def fallocate(fd, mode, at, n):
        if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(n)):
            assert ctypes.get_errno() == errno.EOPNOTSUPP, ctypes.get_errno()
            os.pwrite(fd, b'x', at)
            os.ftruncate(fd, 8192)""", """
import errno
for fd in held:
    assert os.pread(fd, 99999, 0) == b'a' * 4096 + b'b' * 8192
assert os.copy_file_range(source, held[0], 100, 0, 10) == 100
os.lseek(held[1], 4095, os.SEEK_SET)
assert os.sendfile(held[1], source, 0, 100) == 100
fallocate(held[2], 3, 0, 4097)
fallocate(held[3], 8, 0, 4096)""")
        self.assertEqual((self.directory / "sent").read_bytes()[4090:4200], b"a" * 5 + b"c" * 100 + b"b" * 5)

    def test_a_kill_while_what_is_mapped_is_kept(self):
        """Either there is no such epoch, or what it needs is there."""
        text = """
            import mmap, os, signal, sys, pyheap
            with open("mapped", "wb") as file:
                file.write(bytes(16 << 20))
            mapped = mmap.mmap(os.open("mapped", os.O_RDWR), 0)
            pyheap.epoch(wait=True)
            if not pyheap.status()["recoveries"]:
                program = os.getpid()
                if not os.fork():
                    while not any(name.startswith("2-") for name in os.listdir(sys.argv[1])):
                        pass
                    os.kill(program, signal.SIGKILL)
                    os._exit(0)
            pyheap.epoch()
            mapped[0] += 1
            if not os.path.exists("go"):
                os.kill(os.getpid(), signal.SIGKILL)
            print("counted", mapped[0])
        """
        self.assert_killed(self.run_program(text, self.UNDO).returncode, signal.SIGKILL)
        self.assert_killed(self.recover().returncode, signal.SIGKILL)
        (self.directory / "go").touch()
        done = self.recover()
        self.assert_ended(done)
        self.assertEqual(done.stdout, "counted 1\n")

    def test_numbers_and_places_that_change_between_writes(self):
        """A descriptor that was written to at the end of its file is looked at again when it may
        be another one, or elsewhere."""
        names = ("sought", "doubled", "opened", "numbered", "sent", "reopened")
        self.redo(f"""
    import ctypes, socket
    libc = ctypes.CDLL(None)
    libc.fopen.restype = libc.freopen.restype = ctypes.c_void_p
    for name in {names}:
        open(name, 'wb').write(bytes(10))
    open('sink', 'w').close()
    def opened(name):
        return os.open(name, os.O_RDWR)
    def at_end(fd):
        os.lseek(fd, 0, os.SEEK_END)
        os.write(fd, b'+')
        return fd
    def add(fd):
        os.write(fd, bytes([os.pread(fd, 1, 0)[0] + 1]))
    pair = socket.socketpair()""", """
fd = at_end(opened('sought'))
os.lseek(fd, 0, os.SEEK_SET)
add(fd)
other, fd = opened('doubled'), at_end(opened('sink'))
os.dup2(other, fd)
add(fd)
fd = at_end(opened('sink'))
os.close(fd)
assert opened('opened') == fd
add(fd)
other, fd = opened('numbered'), at_end(opened('sink'))
os.close(fd)
assert fcntl.fcntl(other, fcntl.F_DUPFD, fd) == fd
add(fd)
socket.send_fds(pair[0], [b'x'], [opened('sent')])
fd = at_end(opened('sink'))
os.close(fd)
assert socket.recv_fds(pair[1], 1, 1)[1] == [fd]
add(fd)
libc.fopen.argtypes, libc.freopen.argtypes = [ctypes.c_char_p] * 2, [ctypes.c_char_p] * 2 + [ctypes.c_void_p]
libc.fileno.argtypes = [ctypes.c_void_p]
file = libc.fopen(b'sink', b'r+')
fd = at_end(libc.fileno(file))
assert libc.fileno(libc.freopen(b'reopened', b'r+', file)) == fd
add(fd)""")
        self.assertEqual([(self.directory / name).read_bytes()[0] for name in names], [1] * len(names))

    def test_bytes_that_are_overwritten_past_the_page_cache(self):
        """By a descriptor that reads whole blocks alone."""
        self.redo("""
    import mmap
    open('direct', 'wb').write(bytes(8192))
    def direct():
        try:
            return os.open('direct', os.O_RDWR | os.O_DIRECT)
        except OSError:  # some file systems
            return os.open('direct', os.O_RDWR)
    block = mmap.mmap(-1, 4096)""", """
fd = direct()
os.preadv(fd, [block], 4096)
block[0] += 1
os.pwrite(fd, block, 4096)
os.close(fd)""", "assert open('direct', 'rb').read()[4096] == 1")

    def test_what_watches_sees_nothing_of_it(self):
        """The recovery's own changes are none that the program or others have made."""
        self.redo("""
    import ctypes, select
    libc = ctypes.CDLL(None)
    os.mkdir('watched')
    open('watched/old', 'w').write('old')
    watch = libc.inotify_init1(os.O_NONBLOCK)
    os.mkdir('later')
    os.mkdir('gone')
    for n, name in enumerate((b'watched', b'later', b'gone')):
        assert libc.inotify_add_watch(watch, name, 0xfff) == n + 1
    def events():
        return select.select([watch], [], [], 0)[0] and len(os.read(watch, 4096))""", """
assert not events(), 'nobody has done anything'
for name in ('later', 'gone'):
    with open(f'{name}/file', 'x') as f:
        pass
    assert events()
os.rename('later', 'renamed')
os.remove('gone/file')
os.rmdir('gone')
events()
with open('watched/old', 'a') as f:
    f.write('line')
os.mkdir('watched/new')
assert events()""")

    def test_a_large_file_that_is_read_and_rewritten(self):
        """Its blocks are shared, where the file system can do that."""
        where = self.sharing_file_system()
        self.pool = str(where / "test.pm")
        self.redo(f"""
    size = 80 << 20
    name = {str(where / "large")!r}
    with open(name, 'wb') as f:
        f.truncate(size)
        f.write(b'5')
        f.seek(size - 1)
        f.write(b'7')""", """
with open(name, 'rb') as f:
    first = int(f.read(1))
    assert f.seek(0, 2) == size
    f.seek(size - 1)
    assert f.read() == b'7'
with open(name, 'wb') as f:
    f.write(str(first + 1).encode())""", "assert open(name).read() == '6'")

    def test_a_full_directory_that_is_renamed_and_removed(self):
        """Twice another one, when it is back for the second time."""
        self.redo("os.makedirs('d/a/b')", """
os.rename('d/a', 'd/c')
os.rmdir('d/c/b')
os.rmdir('d/c')""", "assert os.listdir('d') == []")

    def test_archives_that_are_added_to(self):
        self.redo("import zipfile; zipfile.ZipFile('z', 'w').writestr('a', 'first')", """
with zipfile.ZipFile('z', 'a') as z:
    assert z.namelist() == ['a']
    z.writestr('b', 'second')""", "assert zipfile.ZipFile('z').testzip() is None")

    def test_a_database_that_is_made(self):
        self.redo("pass", """
db = sqlite3.connect('db')
db.execute('create table t (n)')
db.execute('insert into t values (1)')
db.commit()
db.execute('insert into t values (2)')""", "assert list(sqlite3.connect('db').execute('select n from t')) == [(1,)]")

    def test_what_it_makes_and_removes_leaves_nothing(self):
        self.redo("pass", """
for n in range(100):
    open('scratch', 'xb').write(bytes(100000))
    os.remove('scratch')
assert not [n for n in os.listdir('test.pm.undo') if n.endswith('.file')]""")

    def test_paths_that_are_too_long_for_a_name(self):
        """And those with a backslash: their notes are symbolic links."""
        self.redo("""
    deep = '/'.join('d' * 60 for _ in range(4))
    os.makedirs(deep)""", """
with open(deep + '/f', 'a') as f:
    f.write('once')
os.rename(deep + '/f', deep + '/g')
with open('back\\\\slash', 'x') as f:
    f.write('once')
notes = [f'test.pm.undo/{n}' for n in os.listdir('test.pm.undo')]
links = sum(os.path.islink(n) and not os.readlink(n).startswith('l') for n in notes)  # a recovery's
assert links and links % 5 == 0, links""")

    def test_a_kill_between_making_and_noting_what_was_made(self):
        """Simulated: the notes are given back the names that they had before."""
        self.stopped("import pathlib\n"
                     "    def after():\n"
                     "        open('f', 'x')\n"
                     "        os.mkdir('d')\n"
                     "        os.symlink('nowhere', 's')\n"
                     "        os.mkfifo('p')", "after()")
        types = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "s": stat.S_IFLNK, "p": stat.S_IFIFO}
        for note in [name for name in os.listdir(self.UNDO) if ":" in name]:
            number, _, kind, life, dev, _, birth, *_, path = note.split(":")
            self.assertIn(kind, "mM")
            before = [number, birth, "p", life, dev, 0, 0, types[path[-1]], 0, len(path), path]
            os.rename(self.UNDO / note, self.UNDO / ":".join(map(str, before)))
        (self.directory / "s").rename(self.directory / "t")  # by somebody else
        self.assert_recovers()
        self.assertEqual(os.readlink(self.directory / "t"), "nowhere")

    def test_descriptors_that_only_name_a_file(self):
        """Which is removed before or after the epoch, or renamed; and a link's own."""
        self.redo("""
    for name in 'before', 'removed', 'renamed':
        open(name, 'w').write(name)
    os.symlink('before', 'link')
    before, removed, renamed = (os.open(name, os.O_PATH) for name in ('before', 'removed', 'renamed'))
    link = os.open('link', os.O_PATH | os.O_NOFOLLOW)
    os.remove('before')""", """
for fd, name in (before, 'before'), (removed, 'removed'), (renamed, 'renamed'):
    assert open(f'/proc/self/fd/{fd}').read() == name
assert os.readlink('', dir_fd=link) == 'before'
os.remove('removed')
os.rename('renamed', 'again')
os.remove('link')
assert open(f'/proc/self/fd/{removed}').read() == 'removed'""")
        self.assertNotIn("cannot come back", self.err.read_text())

    def test_the_pause_syncs_nothing(self):
        """What is kept of mapped files at an epoch the keeper makes durable with it."""
        self.stopped(f"""
    sys.path.append({str(HERE)!r})
    import denied, mmap
    blocks = []
    for n in range(40):
        with open(f'mapped{{n}}', 'w+b') as file:
            file.write(bytes(5000))
            blocks.append(mmap.mmap(file.fileno(), 5000))
    denied.denying('fsync', 'fdatasync')()
    def after():
        for block in blocks:
            block[4500] += 1""", """
    after()
    assert all(block[4500] == 1 for block in blocks)""")
        self.assertNotIn("could not be kept", self.err.read_text())
        self.assert_recovers()
        for n in range(40):
            self.assertEqual((self.directory / f"mapped{n}").read_bytes()[4500], 1)

    def test_one_more_name_is_noted_before_it_is_given(self):
        self.stopped(f"""
    sys.path.append({str(HERE)!r})
    import denied
    open('f', 'w').write('x')
    def after():
        denied.denying('linkat')()
        try:
            os.link('f', 'g')
        except PermissionError:
            pass
        assert [n for n in os.listdir('test.pm.undo') if ':m:' in n and n.endswith('g')]""")
        os.link(self.directory / "f", self.directory / "g")
        self.assert_recovers()
        self.assertEqual(self.text("f"), "x")
        self.assertFalse((self.directory / "g").exists())

    def test_what_was_empty_before_stays(self):
        """And has its name back when the recovery is made a second time, as the notes of the
        first are still there."""
        self.redo("open('f', 'w'); os.mkdir('d'); open('d/mark', 'w'); os.remove('d/mark')", """
for name in 'fd':
    assert os.stat(name)
    os.rename(name, name + name)
open('f', 'x').close()
os.mkdir('d')""", "assert os.path.isdir('dd') and os.path.isfile('ff')")

    def test_what_is_a_strangers_stays(self):
        """Removed and made anew by somebody else, before the recovery."""
        self.stopped("open('old', 'w').write('old')\n"
                     "    def after():\n"
                     "        open('old', 'a').write('+')\n"
                     "        open('new', 'w').write('new')")
        for name in ("old", "new"):
            (self.directory / "theirs").write_text("of somebody else")
            os.replace(self.directory / "theirs", self.directory / name)
        self.assert_recovers()
        self.assertEqual(self.text("old"), "of somebody else")
        self.assertEqual(self.text("new"), "of somebody else")

    def test_what_others_have_added_is_put_aside(self):
        self.stopped("open('old', 'w').write('old')\n"
                     "    def after():\n"
                     "        open('old', 'a').write('+')\n"
                     "        open('new', 'w').write('new')",
                     "print(sorted(open(f'test.pm.undo/{n}').read() for n in\n"
                     "        os.listdir('test.pm.undo') if n.endswith('.aside')))")
        for name in ("old", "new"):
            with open(self.directory / name, "a", encoding="ascii") as file:
                file.write(", by hand")
        done = self.assert_recovers()
        self.assertIn("2 files", done.stderr)
        self.assertIn("['+, by hand', 'new, by hand']", done.stdout)
        self.assertEqual(self.text("old"), "old")
        self.assertFalse((self.directory / "new").exists())
        self.assertFalse(self.UNDO.exists())

    def test_files_that_are_kept_by_their_names(self):
        """Not there yet, replaced by renaming, and all that is in a directory."""
        self.stopped("""
    import pathlib
    pyheap.keep_file("results")
    pyheap.keep_file(pathlib.Path("state"))
    pyheap.keep_file(b"shared/later")
    open("other", "w").close()
    try:
        pyheap.keep_file("")
        sys.exit("no error")
    except pyheap.Error:
        pass
    def after():
        for name in ("results", "other"):
            with open(name, "a") as file:
                file.write("line\\n")
        with open("new", "x") as file:
            file.write("state")
        os.replace("new", "state")
        os.makedirs("shared/later/deep")
        open("shared/later/deep/file", "w").write("x")""")
        self.assert_recovers()
        self.assertEqual([self.text(name) for name in ("results", "state", "other", "shared/later/deep/file")],
                         ["line\n", "state", "", "x"])
        self.assertFalse((self.directory / "new").exists())

    def test_a_file_that_is_open_and_kept_by_its_name(self):
        self.stopped("pyheap.keep_file('log'); f = open('log', 'a')\n"
                     "    def after():\n"
                     "        print('line', file=f, flush=True)", "after()")
        self.assert_recovers()
        self.assertEqual(self.text("log"), "line\n" * 2)

    def test_what_was_done_to_a_file_before_it_was_kept(self):
        """After the same epoch; and one that was open at that."""
        self.stopped("""
    for name in 'log', 'open', 'other':
        open(name, 'w').close()
    held, other = open('open', 'a'), open('other', 'a')
    def after():
        for file in held, other:
            print('line', file=file, flush=True)
        for name in 'log', 'made':
            with open(name, 'a') as file:
                file.write('line\\n')
        for file in 'log', 'made', held:
            pyheap.keep_file(file)""", """
    assert [open(name).read() for name in ('log', 'made', 'open', 'other')] == ['line\\n'] * 3 + ['']""")
        self.assert_recovers()

    def switched_off(self, *options):
        self.stopped("f = open('of', 'a'); pyheap.keep_file(f); f.close()\n"
                     "    def after():\n"
                     "        for name in ('of', 'log'):\n"
                     "            with open(name, 'a') as f:\n"
                     "                f.write('line\\n')", "after()")
        self.assert_recovers(*options)
        self.assertEqual(self.text("of") + self.text("log"), "line\n" * 4)

    def test_it_can_be_switched_off_for_a_file(self):
        self.switched_off("--keep-file", "log")

    def test_it_can_be_switched_off_for_all(self):
        self.switched_off("--keep-files")

    def test_older_epochs_say_that_it_is_not_whole(self):
        self.stopped("""
    for n in range(6):
        pyheap.epoch(wait=True)
        if pyheap.status()["recoveries"]:
            print("recovered")
            sys.exit(0)
        with open("log", "a") as f:
            f.write(f"{n}\\n")""")
        self.assert_refused(self.recover("--keep-file", "nothing"), "PH_EUSAGE", "nothing")
        done = self.assert_recovers("--epoch", "2")
        self.assertIn("in part only", done.stderr)
