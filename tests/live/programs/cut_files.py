# SPDX-License-Identifier: MIT
"""Files that the program itself makes shorter: a status file written anew, a log that is emptied, one
with the same name opened again, one that another descriptor cuts, with holes, by every call.

live: rounds=60
"""
import ctypes
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

libc = ctypes.CDLL(None, use_errno=True)
libc.fopen.restype = ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.fclose.argtypes = [ctypes.c_void_p]
libc.truncate.argtypes = [ctypes.c_char_p, ctypes.c_long]


def status(r):
    """As a person would: seek, truncate, write; sometimes shorter, sometimes longer."""
    file = files["status"]
    file.seek(0)
    file.truncate()
    file.write(f"round {r} " + "x" * (r * 7919 % 20000) + "\n")
    file.flush()


def log(r):
    """Grows, and is emptied now and then by its path."""
    if r % 7 == 6:
        [lambda: os.truncate("log", 0), lambda: open("log", "w").close(),
         lambda: libc.fclose(libc.fopen(b"log", b"w")), lambda: libc.truncate(b"log", 10),
         lambda: os.close(os.open("log", os.O_WRONLY | os.O_TRUNC))][r // 7 % 5]()
    files["log"].write(f"line {r}\n" * (1 + r % 50))
    files["log"].flush()


def again(r):
    """The name is opened for writing once more, and the new object is the one that is held."""
    old = files.get("again")
    files["again"] = open("again", "w+")
    if old:
        old.close()
    files["again"].write(f"{r}\n" * (1 + r * 31 % 100))
    files["again"].flush()


def sparse(r):
    fd = files["sparse"].fileno()
    os.ftruncate(fd, r * 37 % 11 * 4096 + 5)
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"at %d" % r, r * 8191 % (1 << 20))
    os.ftruncate(fd, (1 << 20) - r % 3)


def read_only(r):
    """Held for reading only, written by others of the program's."""
    with open("read", "w") as file:
        file.write(f"{r} " * (1 + r * 17 % 3000))
    files["read"].seek(0)
    assert files["read"].read() == f"{r} " * (1 + r * 17 % 3000)


files = {}


def main():
    open("read", "w").close()
    files.update(status=open("status", "w"), log=open("log", "a"), sparse=open("sparse", "w+"),
                 read=open("read"))
    pyheap.epoch()
    for r in range(int(sys.argv[1])):
        before = {name: os.stat(name).st_size for name in files if name != "again"}
        for change in status, log, again, sparse, read_only:
            change(r)
        pyheap.epoch()
        print(r, before, {name: os.stat(name).st_size for name in files})
        for change in log, status, sparse, again:  # after the epoch, and before the next one
            change(r + 1)
        with open("status") as file:
            assert file.read() == f"round {r + 1} " + "x" * ((r + 1) * 7919 % 20000) + "\n"


main()
