# SPDX-License-Identifier: MIT
"""Files that are overwritten in the middle, unbuffered and with unflushed buffers, read and written
by one object, temporary files of all kinds, a directory scanned half-way, devices.

live: rounds=60
"""
import os
import sys
import tempfile

try:
    import pyheap
except ImportError:
    import plain as pyheap

SLOT, SLOTS, LOOK = 16, 1 << 17, 25


def slot(r):
    return b"slot %010d\n" % r


class Overwritten:
    """A table of slots, each round another one; buffered, and not. What was written after the
    epoch stays there, so a slot must not be used twice."""

    def __init__(self, name, buffering):
        with open(name, "wb") as file:
            file.truncate(SLOT * SLOTS)
        self.file = open(name, "r+b", buffering=buffering)
        self.look = open(name, "rb", buffering=0)

    def write(self, r):
        self.file.seek(r * SLOT)
        self.file.write(slot(r))

    def check(self, r):
        assert self.file.tell() == r * SLOT + SLOT
        self.file.flush()
        for earlier in range(max(0, r - LOOK), r + 1):
            self.look.seek(earlier * SLOT)
            assert self.look.read(SLOT) == slot(earlier), earlier


class Temporary:
    """Of every kind that tempfile makes."""

    def __init__(self):
        self.wanted = b""
        self.directory = tempfile.mkdtemp(dir="..")
        fd, self.name = tempfile.mkstemp(dir=self.directory)
        self.files = [tempfile.TemporaryFile(), os.fdopen(fd, "w+b"),
                      tempfile.NamedTemporaryFile(dir=self.directory, delete=False),
                      tempfile.SpooledTemporaryFile(max_size=300),
                      tempfile.SpooledTemporaryFile(max_size=1 << 30)]

    def write(self, r):
        self.wanted += slot(r)
        for file in self.files:
            file.seek(0, os.SEEK_END)
            file.write(slot(r))

    def check(self):
        for file in self.files:
            file.seek(0)
            assert file.read() == self.wanted, file


def main():
    tables = [Overwritten("unbuffered", 0), Overwritten("buffered", -1)]
    temporary = Temporary()
    text = open("text", "w+", encoding="utf-8")
    both = open("both", "a+b")
    only_new = open("new", "xb", buffering=0)
    os.mkdir("many")
    for n in range(200):
        os.mkdir(f"many/{n}")
    scan, seen = None, set()
    null, random, zero = open(os.devnull, "wb"), open("/dev/urandom", "rb"), open("/dev/zero", "rb")
    for r in range(int(sys.argv[1])):
        for table in tables:
            table.write(r)
        temporary.write(r)
        text.write(f"line {r}: \N{SNOWMAN}\n")
        both.write(slot(r))
        only_new.write(slot(r))
        if not scan:
            scan, seen = os.scandir("many"), set()
        seen.update(next(scan).name for _ in range(50))
        pyheap.epoch()
        for table in tables:
            table.check(r)
        temporary.check()
        both.seek(r * SLOT)
        assert both.read() == slot(r)
        text.seek(0)
        assert sum(1 for _ in text) == r + 1
        if len(seen) == 200:
            assert not list(scan) and seen == set(map(str, range(200)))
            scan = None
        assert null.write(b"x") == 1 and len(random.read(3)) == 3 and zero.read(2) == b"\0\0"
        print(r)


main()
