# SPDX-License-Identifier: MIT
"""case_cuts - files that the program makes shorter after the epoch"""
import os
import pathlib
import shutil
import signal
import tempfile
import unittest

from commands import PATIENCE
from waiting import WAITING, Waiting


class Cuts(Waiting):
    UNDO = property(lambda self: self.directory / "test.pm.undo")
    CUT = ("f = open('cut', 'w'); f.write('0123456789'); f.flush();"
           "after = lambda: [f.truncate(3), f.seek(3), f.write('after'), f.flush()]")

    def kept(self):
        self.assertTrue(self.UNDO.exists(), f"nothing was kept: {self.err.read_text()}")
        return len(list(self.UNDO.glob("[0-9]*")))

    def test_what_the_program_cuts_off_comes_back(self):
        self.stopped(self.CUT, "assert open('cut').read() == '0123456789'; f.write('!')")
        self.assertEqual((self.directory / "cut").read_text(), "012after")
        self.assertEqual(self.kept(), 1)
        self.assertEqual(self.UNDO.stat().st_mode & 0o777, 0o700)
        self.assert_recovers()
        self.assertEqual((self.directory / "cut").read_text(), "0123456789!")
        self.assertFalse(self.UNDO.exists())  # a finished program needs it no more

    def test_a_file_beside_the_shared_memory_is_a_file(self):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="live-cut-", dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, directory)
        self.stopped(self.CUT.replace("open('cut'", f"open('{directory}/cut'"), "f.write('!')")
        self.assertEqual(self.kept(), 1)
        self.assert_recovers()
        self.assertEqual((directory / "cut").read_text(), "0123456789!")

    @unittest.skipIf(os.geteuid() == 0, "root may read everything")
    def test_what_was_cut_off_and_cannot_be_read_is_not_called_missing(self):
        self.stopped(self.CUT, "f.write('!')")
        self.UNDO.chmod(0)
        self.assert_refused(self.recover(), "PH_EACCES", "test.pm.undo", "right")
        self.UNDO.chmod(0o700)
        self.assert_recovers()
        self.assertEqual((self.directory / "cut").read_text(), "0123456789!")

    def test_what_is_cut_off_is_beside_the_pool_wherever_the_program_goes(self):
        text = WAITING.format(prepare=self.CUT + "; os.chdir('/')", finish="pass")
        keeper, target = self.start([self.commands.run, "--pool", "test.pm", "--python",
                                     self.python, self.script(text)])
        self.wait_printed("epoch")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)
        self.assertEqual(self.kept(), 1)
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

    def test_what_an_epoch_before_the_newest_needs_is_kept(self):
        """The file is closed at the newest one, which may never become durable."""
        self.stopped("""
    file = open("cut", "w+")
    file.write("0123456789")
    file.flush()
    pyheap.epoch(wait=True)
    if pyheap.status()["recoveries"]:
        file.seek(0)
        assert file.read() == "0123456789"
        print("recovered")
        sys.exit(0)
    file.close()
    def after():
        with open("cut", "w") as again:
            again.write("longer than it was\\n" * 3)""", "pass")
        self.assert_recovers("--epoch", "1")
        self.assertEqual((self.directory / "cut").read_text(), "0123456789")

    def test_cuts_of_discarded_epochs_are_not_undone(self):
        self.stopped("f = open('cut', 'w'); f.write('0123456789'); f.flush();"
                     "pyheap.epoch(wait=True); f.truncate(4); f.seek(4); f.write('45');"
                     "f.flush(); done = pyheap.status()['recoveries'];"
                     "after = lambda: f.truncate(1)",
                     "assert open('cut').read() == '012345', open('cut').read()")
        self.assertEqual(self.kept(), 2)
        # From the first epoch on: the file is as it was then, and so is what follows.
        keeper, target = self.start([self.commands.recover, "--epoch", "1", self.pool])
        self.wait_printed("recovered")
        keeper.wait(PATIENCE)
        self.assertEqual((self.directory / "cut").read_text(), "012345")

    def test_a_packed_pool_takes_along_what_was_cut_off(self):
        self.stopped(self.CUT, "f.write('!')")
        packed = self.directory / "packed.pm"
        kept = self.directory / "packed.pm.undo"
        kept.mkdir()
        done = self.finish([self.commands.recover, "--pack", packed, self.pool])
        self.assert_refused(done, "PH_EUSAGE", "packed.pm.undo")
        self.assertFalse(packed.exists())
        kept.rmdir()
        self.assert_ended(self.finish([self.commands.recover, "--pack", packed, self.pool]))
        self.assertEqual(kept.stat().st_mode & 0o777, 0o700)
        for path in (self.UNDO, kept):
            self.assertEqual(len(list(path.glob("[0-9]*"))), 1)
        again = self.finish([self.commands.recover, "--pack", packed, self.pool])
        self.assert_refused(again, "PH_EUSAGE", "packed.pm")
        self.assertEqual(len(list(kept.glob("[0-9]*"))), 1)  # refusing has done no harm
        # On another machine, where the file has another inode.
        shutil.rmtree(self.UNDO)
        os.remove(self.pool)
        text = (self.directory / "cut").read_text()
        (self.directory / "cut").rename(self.directory / "elsewhere")
        (self.directory / "elsewhere").unlink()
        (self.directory / "cut").write_text(text)
        self.pool = str(packed)
        self.assert_recovers()
        self.assertEqual((self.directory / "cut").read_text(), "0123456789!")
        self.assertFalse(kept.exists())

    def pack(self):
        """From now on there is a packed copy alone."""
        packed = self.directory / "packed.pm"
        self.assert_ended(self.finish([self.commands.recover, "--pack", packed, self.pool]))
        shutil.rmtree(self.UNDO)
        os.remove(self.pool)
        self.pool = str(packed)

    def die_again(self):
        """Killed when it has been recovered and has printed so."""
        keeper, target = self.start([self.commands.recover, self.pool])
        self.wait_printed("again")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)

    def test_a_packed_pool_takes_along_what_was_removed(self):
        self.stopped("""
    for name in 'named', 'open', 'moved':
        open(name, 'w').write(name)
        os.chmod(name, 0o640)
    os.link('named', 'linked')
    file = open('open', 'r+')
    os.mkfifo('p')
    ends = os.open('p', os.O_RDONLY | os.O_NONBLOCK), os.open('p', os.O_WRONLY)
    os.write(ends[1], b'abc')
    import socket, stat
    socket.socket(socket.AF_UNIX).bind('socket')
    import mmap
    with open('mapped', 'w+b') as data:
        data.write(bytes(range(256)) * 64)
        data.flush()
        mapped = mmap.mmap(data.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    def after():
        os.rename('moved', 'other')
        for name in 'named', 'linked', 'open', 'other', 'p', 'socket', 'mapped':
            os.remove(name)
""", """
    assert [open(name).read() for name in ('named', 'open', 'moved')] == ['named', 'open', 'moved']
    assert file.read() == 'open' and os.stat('open').st_ino == os.fstat(file.fileno()).st_ino
    assert os.path.samefile('named', 'linked')
    assert os.stat('named').st_mode & 0o777 == 0o640 and not os.path.exists('other')
    assert os.read(ends[0], 9) == b'abc' and os.stat('p').st_ino == os.fstat(ends[0]).st_ino
    assert stat.S_ISSOCK(os.stat('socket').st_mode)
    assert mapped[:] == bytes(range(256)) * 64 == open('mapped', 'rb').read()""")
        self.pack()
        self.assert_recovers()

    def test_a_packed_pool_undoes_another_name_of_what_was_removed(self):
        """What a lock file is made of: the removed name is a copy, the other one is not."""
        self.stopped("""
    open('made', 'w').close()
    def after():
        os.link('made', 'lock')
        os.remove('made')
""", """
    assert os.path.exists('made') and not os.path.exists('lock')
    after()""")
        self.pack()
        self.assert_recovers()

    def test_directories_that_are_made_anew_twice(self):
        """By a recovery that is killed before it has undone all, and by the next one."""
        self.stopped("""
    os.makedirs('old/a/b')
    open('old/a/file', 'w').close()
    def after():
        os.makedirs('new/a/b')
        open('new/a/file', 'w').close()
        for name in 'old', 'new':
            os.rename(f'{name}/a', f'{name}/c')
            os.remove(f'{name}/c/file')
            os.rmdir(f'{name}/c/b')
            os.rmdir(f'{name}/c')
""", """
    print('again', flush=True)
    if not os.path.exists('go'):
        time.sleep(600)
    assert sorted(os.listdir('old/a')) == ['b', 'file'] and os.listdir('old') == ['a']
    assert not os.path.exists('new')""")
        aside = self.directory / "aside"
        aside.mkdir()
        made = [path for path in self.UNDO.iterdir() if ":M:" in path.name]
        self.assertEqual(len(made), 3)
        for path in made:
            path.rename(aside / path.name)
        self.die_again()
        self.assertTrue((self.directory / "new/a/b").exists())
        (life,) = [path for path in self.UNDO.iterdir() if path.name[0].isdigit() and
                   path.is_symlink() and os.readlink(path).startswith("l:")]
        life.unlink()
        for path in made:
            (aside / path.name).rename(path)
        (self.directory / "go").touch()
        self.assert_recovers()

    def test_a_copy_that_was_taken_is_known_again(self):
        """By a recovery after another death, before there was an epoch."""
        self.stopped("""
    for name in 'open', 'moved':
        open(name, 'w').write(name)
    files = [open(name, 'r+') for name in ('open', 'moved')]
    empty = [open(name, 'w+') for name in ('empty', 'empty too')]
    os.mkfifo('p')
    ends = os.open('p', os.O_RDONLY | os.O_NONBLOCK), os.open('p', os.O_WRONLY)
    def after():
        for file in empty:
            file.write('not any more')
            file.flush()
        os.remove('empty')
        os.remove('open')
        os.remove('p')
        os.rename('empty too', 'not empty')
        removed and os.remove('not empty')
    removed = True
""", """
    if not os.path.exists('go'):
        os.rename('moved', 'other')
        removed = False
        after()
        print('again', flush=True)
        time.sleep(600)
    assert [file.read() for file in files] == ['open', 'moved'] and not os.path.exists('other')
    for file in empty:
        assert file.read() == ''
        assert os.path.samestat(os.stat(file.name), os.fstat(file.fileno()))
    assert os.stat('p').st_ino == os.fstat(ends[0]).st_ino""")
        self.pack()
        shutil.copy(self.directory / "moved", self.directory / "copy")
        os.replace(self.directory / "copy", self.directory / "moved")
        self.die_again()
        (self.directory / "go").touch()
        self.assert_recovers()

    def test_cuts_are_not_believed_if_damaged_or_of_others(self):
        self.stopped(self.CUT)
        (kept,) = self.UNDO.glob("[0-9]*")
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
