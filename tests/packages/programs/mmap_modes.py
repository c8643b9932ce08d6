# SPDX-License-Identifier: MIT
"""mmap: anonymous private and shared memory, copies on write, read-only, resized, with a part of a
file at an offset, an array over it; advice.

live: rounds=40
"""
import mmap
import os
import sys
from array import array

import pyheap

PAGE = mmap.PAGESIZE


def main():
    rounds = int(sys.argv[1])
    with open("file", "wb") as file:
        file.write(b"".join(bytes([n]) * PAGE for n in range(8)))
    fd = os.open("file", os.O_RDWR)
    maps = {"anonymous": mmap.mmap(-1, 4 * PAGE),
            "private": mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
            "copy": mmap.mmap(fd, 4 * PAGE, access=mmap.ACCESS_COPY),
            "offset": mmap.mmap(fd, PAGE, access=mmap.ACCESS_WRITE, offset=5 * PAGE)}
    read = mmap.mmap(fd, 2 * PAGE, access=mmap.ACCESS_READ, offset=PAGE)
    grows = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    maps["private"].madvise(mmap.MADV_RANDOM)
    numbers = memoryview(maps["anonymous"]).cast("q")
    for r in range(rounds):
        numbers[r % 500] = r
        for name in ("private", "copy"):
            maps[name][0:8] = r.to_bytes(8, "little")
        if r % 10 == 9:
            grows.resize(len(grows) + PAGE)
        grows[len(grows) - 1] = r % 256
        pyheap.epoch()
        assert numbers[r % 500] == r and sum(numbers) == sum(range(max(0, r - 499), r + 1))
        for name in ("private", "copy"):
            assert maps[name][0:8] == r.to_bytes(8, "little"), name
        maps["offset"][0:8] = r.to_bytes(8, "little")  # a file's old bytes do not come back
        assert os.pread(fd, 8, 5 * PAGE) == r.to_bytes(8, "little")
        assert maps["copy"][PAGE:PAGE + 2] == b"\1\1" and read[:] == b"\1" * PAGE + b"\2" * PAGE
        assert grows[len(grows) - 1] == r % 256 and len(grows) == PAGE * (1 + (r + 1) // 10)
        assert os.pread(fd, 8, 0) == bytes(8), "a private copy has reached the file"
        maps["offset"].flush()
        if r % 10 == 0:
            print(r, array("q", numbers[:3].tolist()).tolist())
    os.close(fd)


main()
