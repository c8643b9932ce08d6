# SPDX-License-Identifier: MIT
"""Files without a name in every mode, memfds that are mapped shared and twice, sealed or not,
what is shared with an mmap after recovery too; a directory read half-way.

live: rounds=60
"""
import fcntl
import mmap
import os
import tempfile

import parts

PAGE = mmap.PAGESIZE
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEAL_SHRINK, SEAL_WRITE = 0x2, 0x8


def unlinked(name, flags):
    """A descriptor of a file that is deleted at once, and one to look into it with."""
    fd = os.open(name, flags | os.O_CREAT, 0o600)
    look = os.open(name, os.O_RDONLY)
    os.unlink(name)
    return fd, look


class Deleted:
    """Two descriptions of one deleted file each: in recovered programs too."""

    def __init__(self):
        self.append = unlinked("append", os.O_WRONLY | os.O_APPEND)
        self.write = unlinked("write", os.O_WRONLY)
        self.update = open("update", "w+b", buffering=0)
        os.unlink("update")
        os.ftruncate(self.update.fileno(), 1 << 40)  # sparse: nobody could save all of it
        self.text = tempfile.TemporaryFile("w+")
        self.wanted = b""

    def fill(self, r):
        os.write(self.append[0], b"appended %d\n" % r)
        os.lseek(self.write[0], 7 * r, os.SEEK_SET)
        os.write(self.write[0], b"%07d" % r)
        self.update.seek(r * 10 * PAGE + (1 << 30))
        self.update.write(b"update %07d" % r)
        self.text.write(f"text {r}\n")

    def check(self, r):
        self.wanted += b"appended %d\n" % r
        os.lseek(self.append[0], 3, os.SEEK_SET)  # does not matter to O_APPEND
        for fd in (self.append[0], self.write[0]):
            try:
                os.read(fd, 1)
            except OSError:
                pass
            else:
                raise AssertionError("opened for writing only")
        assert os.lseek(self.write[0], 0, os.SEEK_CUR) == 7 * r + 7
        assert self.update.tell() == r * 10 * PAGE + (1 << 30) + 14
        for i in (0, r // 2, r):
            assert os.pread(self.update.fileno(), 14, i * 10 * PAGE + (1 << 30)) == \
                b"update %07d" % i
        assert os.fstat(self.update.fileno()).st_size == 1 << 40
        assert fcntl.fcntl(self.append[0], fcntl.F_GETFL) & os.O_APPEND
        # Each pair is one file: it was in the reference, and is after a recovery.
        assert os.pread(self.write[1], 100000, 0) == b"".join(b"%07d" % i for i in range(r + 1))
        assert os.pread(self.append[1], 100000, 0) == self.wanted

    def end(self):
        self.text.seek(0)
        return len(self.text.read())


class Memory:
    """Shared memory: a memfd, mapped, is one with its mappings."""

    def __init__(self):
        self.fd = os.memfd_create("live test")
        os.ftruncate(self.fd, 64 * PAGE)
        self.read_only = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY)
        self.map = mmap.mmap(self.fd, 16 * PAGE)
        self.twice = mmap.mmap(self.fd, 8 * PAGE, offset=4 * PAGE)
        self.look = mmap.mmap(self.read_only, 16 * PAGE, prot=mmap.PROT_READ)
        self.sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.write(self.sealed, b"for ever" * 2000)
        fcntl.fcntl(self.sealed, F_ADD_SEALS, SEAL_SHRINK | SEAL_WRITE)
        self.keeps_size = os.memfd_create("keeps size", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.keeps_size, 2 * PAGE)
        self.kept_map = mmap.mmap(self.keeps_size, 2 * PAGE)
        fcntl.fcntl(self.keeps_size, F_ADD_SEALS, SEAL_SHRINK)
        self.disk = tempfile.TemporaryFile(buffering=0)
        self.disk.write(bytes(3 * PAGE))
        self.disk_map = mmap.mmap(self.disk.fileno(), 3 * PAGE)

    def fill(self, r):
        word = b"%7d" % r
        self.map[5 * PAGE:5 * PAGE + 7] = word                # mapped
        os.pwrite(self.fd, word, 40 * PAGE)                   # not mapped
        self.kept_map[100:107] = word
        self.disk_map[2 * PAGE:2 * PAGE + 7] = word

    def check(self, r):
        word, other = b"%7d" % r, b"%7d" % (r + 1)
        assert os.readlink(f"/proc/self/fd/{self.fd}") == "/memfd:live test (deleted)"
        assert os.fstat(self.fd).st_size == 64 * PAGE
        assert os.pread(self.fd, 7, 40 * PAGE) == word
        assert os.pread(self.read_only, 7, 40 * PAGE) == word
        for view, at in ((self.map, 5), (self.twice, 1), (self.look, 5)):
            assert view[at * PAGE:at * PAGE + 7] == word
        self.twice[PAGE:PAGE + 7] = other
        assert self.map[5 * PAGE:5 * PAGE + 7] == other, "two mappings of one memory"
        assert self.look[5 * PAGE:5 * PAGE + 7] == other
        assert os.pread(self.fd, 7, 5 * PAGE) == other, "the memfd and its mapping are one"
        os.pwrite(self.fd, word, 6 * PAGE)
        assert self.map[6 * PAGE:6 * PAGE + 7] == word
        assert fcntl.fcntl(self.sealed, F_GET_SEALS) == SEAL_SHRINK | SEAL_WRITE
        assert os.pread(self.sealed, 100, 15990) == (b"for ever" * 2)[6:]
        assert fcntl.fcntl(self.keeps_size, F_GET_SEALS) == SEAL_SHRINK
        assert os.pread(self.keeps_size, 7, 100) == word
        assert os.pread(self.disk.fileno(), 7, 2 * PAGE) == word
        os.pwrite(self.disk.fileno(), other, 2 * PAGE)
        assert self.disk_map[2 * PAGE:2 * PAGE + 7] == other


class Directory:
    """Read half-way: a recovered program reads the other half."""

    def __init__(self):
        os.mkdir("many")
        for i in range(2000):
            open(f"many/{i}", "w").close()
        self.names = set()
        self.scan = None

    def fill(self, r):
        if self.scan is None:
            self.scan = os.scandir("many")
            self.names = set()
        for _ in range(300):
            entry = next(self.scan, None)
            if entry is None:
                self.scan = None
                break
            assert entry.name not in self.names, "twice"
            self.names.add(entry.name)

    def check(self, r):
        if self.scan is None:
            assert len(self.names) == 2000, len(self.names)


def main():
    them = [Deleted(), Memory(), Directory()]
    parts.go(them)
    print("end", them[0].end())


main()
