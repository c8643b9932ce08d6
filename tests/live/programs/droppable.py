# SPDX-License-Identifier: MIT
"""Memory that the kernel may empty comes back empty: secrets are kept there, no two recoveries may
share them. Where the kernel has no such memory, one that is emptied in children is what it was.

live: rounds=40
"""
import ctypes
import mmap
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

MAP_DROPPABLE = 0x08  # linux/mman.h of Linux 6.11
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
FAILED = ctypes.c_void_p(-1).value


def recoveries():
    return pyheap.status()["recoveries"] if pyheap.active else 0


def droppable(address):
    """Whether the kernel still knows it to be so."""
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:
        inside = False
        for line in file:
            words = line.split()
            if "-" in words[0] and not line.startswith("VmFlags"):
                start, end = (int(x, 16) for x in words[0].split("-"))
                inside = start <= address < end
            elif inside and words[0] == "VmFlags:":
                return "dp" in words
    return False


def main():
    size = 4 * mmap.PAGESIZE
    rw, private = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE
    address = libc.mmap(None, size, rw, mmap.MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0)
    kept = address == FAILED
    if kept:
        address = libc.mmap(None, size, rw, private, -1, 0)
    for r in range(int(sys.argv[1])):
        ctypes.memset(address, 1 + r % 250, size)
        before = recoveries()
        pyheap.epoch()
        content = ctypes.string_at(address, size)
        if kept:
            assert content == bytes([1 + r % 250]) * size
        else:
            assert droppable(address)
            if recoveries() != before:
                assert not any(content), "a secret came back"
        if r % 10 == 0:
            print("round", r)


main()
