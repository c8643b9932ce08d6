# SPDX-License-Identifier: MIT
"""Mappings with madvise and mlock, file locks of all three kinds, a database transaction that
stays open: all as they were, seen from a child and from the kernel.

live: rounds=40
"""
import ctypes
import fcntl
import mmap
import os
import re
import sqlite3
import struct
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

PAGE = mmap.PAGESIZE
DONTFORK, DONTDUMP, WIPEONFORK, NOHUGEPAGE = 10, 16, 18, 15
F_OFD_SETLK = 37
libc = ctypes.CDLL(None, use_errno=True)


class Advice:
    FLAGS = {"dc": DONTFORK, "dd": DONTDUMP, "wf": WIPEONFORK, "nh": NOHUGEPAGE}

    def __init__(self):
        self.maps = {}
        for code, advice in self.FLAGS.items():
            memory = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory[:] = code.encode() * (2 * PAGE)
            memory.madvise(advice)
            self.maps[code] = memory
        locked = self.maps["lo"] = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE |
                                             mmap.MAP_ANONYMOUS)
        locked[:] = b"lo" * (2 * PAGE)
        assert libc.mlock(ctypes.c_void_p(self.address(locked)), len(locked)) == 0
        # Advice to one page makes mappings of their own of it and of the rest.
        locked.madvise(NOHUGEPAGE, PAGE, PAGE)

    @staticmethod
    def address(memory):
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def check(self, r):
        found = {}
        with open("/proc/self/smaps", encoding="ascii", errors="replace") as smaps:
            for line in smaps:
                heading = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if heading:
                    start, end = (int(word, 16) for word in heading.groups())
                elif line.startswith("VmFlags:"):
                    found[start, end] = line.split()[1:]
        for code, memory in self.maps.items():
            assert memory[:] == code.encode() * (2 * PAGE)
            at = self.address(memory)
            flags = [words for (start, end), words in found.items() if start <= at < end]
            assert len(flags) == 1 and code in flags[0], (code, flags)


class Locks:
    def __init__(self):
        self.files = [open(f"lock.{kind}", "w+b", buffering=0) for kind in
                      ("posix", "flock", "ofd")]
        for file in self.files:
            file.write(bytes(100))
        fcntl.lockf(self.files[0], fcntl.LOCK_EX, 10, 5)
        fcntl.lockf(self.files[0], fcntl.LOCK_SH, 0, 50)
        fcntl.flock(self.files[1], fcntl.LOCK_SH)
        fcntl.fcntl(self.files[2], F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 7, 3, 0))

    def check(self, r):
        """As fdinfo tells: kind, type, first and last byte."""
        wanted = ([("POSIX", "READ", "50", "EOF"), ("POSIX", "WRITE", "5", "14")],
                  [("FLOCK", "READ", "0", "EOF")], [("OFDLCK", "WRITE", "7", "9")])
        for file, locks in zip(self.files, wanted):
            with open(f"/proc/self/fdinfo/{file.fileno()}", encoding="ascii") as info:
                words = [line.split() for line in info if line.startswith("lock:")]
            assert sorted((w[2], w[4], w[6 + 1], w[8]) for w in words) == locks, words


class Database:
    """A transaction that stays open through all epochs, and transactions of another one."""

    def __init__(self):
        self.open = sqlite3.connect("open.db", isolation_level=None)
        self.open.execute("PRAGMA journal_mode = MEMORY")
        self.open.execute("CREATE TABLE t (k PRIMARY KEY, v)")
        self.open.execute("BEGIN IMMEDIATE")
        # Beside the directory whose files are compared: its bytes tell how often it was
        # written. Removing it at the end would be a change that a recovery must refuse.
        self.many = sqlite3.connect("../many.db", isolation_level=None)
        self.many.execute("PRAGMA synchronous = OFF")
        self.many.execute("CREATE TABLE t (k PRIMARY KEY, v)")

    def check(self, r):
        self.open.execute("INSERT INTO t VALUES (?, ?)", (r, r * r))
        total = self.open.execute("SELECT sum(v) FROM t").fetchone()[0]
        assert total == sum(i * i for i in range(r + 1))
        # What is done after the epoch may be in the database already.
        self.many.execute("BEGIN")
        self.many.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)",
                              [(r * 50 + i, str(r) * 20) for i in range(50)])
        self.many.execute("COMMIT")
        n = self.many.execute("SELECT count(*) FROM t WHERE k < ?", (r * 50 + 50,)).fetchone()
        assert n == (r * 50 + 50,), n

    def end(self):
        assert self.many.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        self.many.close()
        self.open.close()  # rolls back
        return os.path.getsize("open.db")


def main():
    rounds = int(sys.argv[1])
    parts = [Advice(), Locks(), Database()]
    for r in range(rounds):
        pyheap.epoch()
        busy = sum(i * i for i in range(40000))
        for part in parts:
            part.check(r)
        if r % 20 == 0:
            print(r, busy, flush=True)
    print("end", parts[2].end())


main()
