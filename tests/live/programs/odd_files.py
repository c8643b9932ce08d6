# SPDX-License-Identifier: MIT
"""Descriptors of what is no ordinary file: O_PATH ones, directories (removed ones, and the
working directory), memory devices, FIFOs by name with something in them.

live: rounds=60
"""
import errno
import fcntl
import os
import select
import stat

import parts


def failure(function, *args):
    """The errno with which a call fails."""
    try:
        function(*args)
    except OSError as error:
        return error.errno
    raise AssertionError(f"{function.__name__}{args} does not fail")


class Names:
    """O_PATH: of a file, a directory, a symbolic link itself, a FIFO."""

    def __init__(self):
        os.makedirs("d/sub")
        with open("d/file", "w") as file:
            file.write("content")
        os.symlink("file", "d/link")
        os.mkfifo("d/fifo")
        self.directory = os.open("d", os.O_PATH | os.O_DIRECTORY)
        self.file, self.link, self.fifo, self.sub = (
            os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self.directory)
            for name in ("file", "link", "fifo", "sub"))

    def fill(self, r):
        pass

    def check(self, _):
        assert failure(os.read, self.file, 1) == errno.EBADF
        assert os.fstat(self.file).st_size == 7
        with open(f"/proc/self/fd/{self.file}") as file:
            assert file.read() == "content"
        assert os.readlink("", dir_fd=self.link) == "file"
        assert stat.S_ISFIFO(os.fstat(self.fifo).st_mode)
        assert sorted(os.listdir(f"/proc/self/fd/{self.directory}")) == [
            "fifo", "file", "link", "sub"]
        assert os.stat("../file", dir_fd=self.sub).st_size == 7


class Directories:
    """Read half-way; empty; removed, which is so again."""

    def __init__(self):
        os.makedirs("many/empty")
        for i in range(500):
            open(f"many/{i}", "w").close()
        self.open = os.open("many", os.O_RDONLY | os.O_DIRECTORY)
        self.empty = os.scandir("many/empty")
        self.scan, self.found = None, []
        os.mkdir("many/gone")
        self.gone = os.open("many/gone", os.O_RDONLY | os.O_DIRECTORY)
        self.gone_name = os.open("many/gone", os.O_PATH)
        self.gone_scan = os.scandir(self.gone)

    def leave(self):
        os.chdir("many/gone")
        os.rmdir("../gone")

    def fill(self, r):
        if not self.scan:
            self.scan, self.found = os.scandir(self.open), []
        self.found += [entry.name for _, entry in zip(range(120), self.scan)]

    def check(self, _):
        if self.scan and len(self.found) > 360:
            self.found += [entry.name for entry in self.scan]
            assert len(self.found) == len(set(self.found)) == 501, len(self.found)
            self.scan = None
        assert failure(os.getcwd) == failure(os.mkdir, "x") == errno.ENOENT
        for fd in self.gone, self.gone_name:
            assert os.fstat(fd).st_nlink == 0 and stat.S_ISDIR(os.fstat(fd).st_mode)
            assert failure(lambda fd=fd: os.mkdir("x", dir_fd=fd)) == errno.ENOENT
        assert os.listdir(self.gone) == []

    def end(self):
        assert list(self.empty) == list(self.gone_scan) == []


class Devices:
    def __init__(self):
        for name in "null", "zero", "full", "urandom", "random":
            setattr(self, name, os.open(f"/dev/{name}", os.O_RDWR))
        self.file = open("/dev/null", "w")

    def fill(self, r):
        print("unflushed", file=self.file)

    def check(self, _):
        print("unflushed", file=self.file)
        assert os.write(self.null, b"x") == 1 and os.read(self.null, 1) == b""
        assert os.read(self.zero, 5) == bytes(5)
        assert failure(os.write, self.full, b"x") == errno.ENOSPC
        for fd in self.urandom, self.random:
            assert os.read(fd, 16) != os.read(fd, 16)


class Fifos:
    """One with both ends inside, one open in both directions, one whose writers are gone, and
    one that never had any."""

    def __init__(self):
        self.r, self.w = self.opened("two", os.O_RDONLY, os.O_WRONLY)
        os.set_blocking(self.w, True)
        fcntl.fcntl(self.w, 1031, 1 << 17)  # F_SETPIPE_SZ
        self.both, = self.opened("one", os.O_RDWR)
        self.hung, writer = self.opened("hung", os.O_RDONLY, os.O_WRONLY)
        os.write(writer, b"last words")
        os.close(writer)
        self.waiting, = self.opened("waiting", os.O_RDONLY)

    @staticmethod
    def opened(name, *flags):
        os.mkfifo(name)
        return [os.open(name, flag | os.O_NONBLOCK) for flag in flags]

    def fill(self, r):
        os.write(self.w, b"%d" % r * 40000)
        os.write(self.both, b"%d" % r)

    def check(self, r):
        assert fcntl.fcntl(self.r, 1032) == 1 << 17 and os.get_blocking(self.w)
        assert os.read(self.r, 1 << 17) == b"%d" % r * 40000
        assert os.read(self.both, 100) == b"%d" % r
        for fd in self.r, self.both:
            assert failure(os.read, fd, 1) == errno.EAGAIN
        poll = select.poll()
        for fd in self.hung, self.waiting:
            poll.register(fd, select.POLLIN)
        # To whom nobody has written yet, nobody has hung up.
        assert [fd for fd, events in poll.poll(0) if events & select.POLLHUP] == [self.hung]
        assert os.read(self.hung, 1) == b"last words"[r:r + 1]
        assert os.read(self.waiting, 1) == b""


def main():
    directories = Directories()
    them = [Names(), Fifos(), Devices(), directories]
    directories.leave()
    parts.go(them)
    directories.end()
    print("end")


main()
