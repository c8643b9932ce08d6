# SPDX-License-Identifier: MIT
"""Files of /proc/self half read at the epoch: those of the program are there afterwards.

live: rounds=40
"""
import os
import re
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

LINE = re.compile(r"[0-9a-f]+-[0-9a-f]+ [r-][w-][x-][ps] [0-9a-f]+ \S+ \d+")


def rest_of(fd):
    """What is left of a file; None if it did not come back."""
    try:
        pieces = []
        while piece := os.read(fd, 4096):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError:
        return None
    finally:
        os.close(fd)


def main():
    environment = open("/proc/self/environ", "rb").read()
    for r in range(int(sys.argv[1])):
        status = os.open(f"/proc/{os.getpid()}/status", os.O_RDONLY)
        leader = os.open(f"/proc/self/task/{os.getpid()}/comm", os.O_RDONLY)
        maps = os.open("/proc/self/maps", os.O_RDONLY)
        tasks = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY)
        name = os.read(status, 6)
        first = os.read(maps, 100)
        environ = os.open("/proc/self/environ", os.O_RDONLY)
        os.read(environ, 5)
        pyheap.epoch()
        text = rest_of(status)
        assert name == b"Name:\t" and b"\nThreads:\t" in text and b"\nSigCgt:\t" in text
        assert rest_of(leader).strip() == open("/proc/self/comm", "rb").read().strip()
        memory = rest_of(maps)
        lines = (first + memory).decode().splitlines()
        assert len(lines) > 20 and all(LINE.match(line) for line in lines), "half of a file"
        assert any(line.endswith("[stack]") for line in lines)
        assert set(rest_of(environ).split(b"\0")) == set(environment[5:].split(b"\0"))
        assert len(os.listdir(tasks)) >= 1
        os.close(tasks)
        print("round", r)


main()
