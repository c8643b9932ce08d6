# SPDX-License-Identifier: MIT
"""Mappings of regular files: shared ones that are written through and grow with their file, private
ones with changes of their own, at offsets, of a file that is closed.

live: rounds=60
"""
import mmap
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

PAGE = mmap.PAGESIZE
LINE = 32


def line(r):
    return b"record %023d\n" % r + b"."


def main():
    with open("fixed", "wb") as file:
        file.write(bytes(64 * PAGE))
    fixed = open("fixed", "r+b")
    shared = mmap.mmap(fixed.fileno(), 0)
    behind = mmap.mmap(fixed.fileno(), PAGE, offset=48 * PAGE)
    private = mmap.mmap(fixed.fileno(), 0, access=mmap.ACCESS_COPY)
    reading = mmap.mmap(fixed.fileno(), 0, access=mmap.ACCESS_READ)
    fixed.close()
    growing = open("growing", "w+b")
    growing.truncate(PAGE)
    grown = mmap.mmap(growing.fileno(), 0)
    mine = {}
    for r in range(int(sys.argv[1])):
        shared[:LINE] = behind[-LINE:] = line(r)
        at = r * 7919 % (48 * PAGE) + PAGE // 2
        private[at] = mine[at] = r % 256
        busy = sum(i * i for i in range(40000))
        if (r + 1) * LINE > len(grown):
            grown.resize(len(grown) + 3 * PAGE)
        grown[r * LINE:(r + 1) * LINE] = line(r)
        pyheap.epoch()
        counted = int.from_bytes(shared[LINE:LINE + 8], "little")
        assert counted == r, (counted, r)
        behind[-2 * LINE:-2 * LINE + 8] = shared[LINE:LINE + 8] = (r + 1).to_bytes(8, "little")
        assert reading[:LINE] == line(r) == reading[49 * PAGE - LINE:49 * PAGE]
        assert all(private[at] == value for at, value in mine.items())
        assert reading[49 * PAGE - 2 * LINE:49 * PAGE - LINE] == (r + 1).to_bytes(LINE, "little")
        assert reading[PAGE:PAGE + 9] == bytes(9)
        for earlier in range(max(0, r - 20), r + 1):
            assert grown[earlier * LINE:(earlier + 1) * LINE] == line(earlier), earlier
        assert os.fstat(growing.fileno()).st_size == len(grown)
        print(r, len(grown), len(mine), busy)


main()
