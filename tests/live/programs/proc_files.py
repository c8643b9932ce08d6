# SPDX-License-Identifier: MIT
"""Files of /proc/self half read at the epoch: those of the program are there afterwards.

live: rounds=40
"""
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


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
    for r in range(int(sys.argv[1])):
        status = os.open(f"/proc/{os.getpid()}/status", os.O_RDONLY)
        leader = os.open(f"/proc/self/task/{os.getpid()}/comm", os.O_RDONLY)
        maps = os.open("/proc/self/maps", os.O_RDONLY)
        tasks = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY)
        name = os.read(status, 6)
        os.read(maps, 100)
        pyheap.epoch()
        text = rest_of(status)
        assert name == b"Name:\t" and b"\nThreads:\t" in text and b"\nSigCgt:\t" in text
        assert rest_of(leader).strip() == open("/proc/self/comm", "rb").read().strip()
        memory = rest_of(maps)
        assert memory is None or len(memory) > 1000, "half of a file is worse than none"
        assert len(os.listdir(tasks)) >= 1
        os.close(tasks)
        print("round", r)


main()
