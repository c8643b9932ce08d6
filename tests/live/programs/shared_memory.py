# SPDX-License-Identifier: MIT
"""multiprocessing.shared_memory and semaphores: what Python removes when the program dies is there
again, under its name, with what was in it at the epoch.

live: rounds=30
"""
import _multiprocessing
import multiprocessing
import os
import sys
from multiprocessing import shared_memory

try:
    import pyheap
except ImportError:
    import plain as pyheap

SIZE = 300000


def add_one(name):
    segment = shared_memory.SharedMemory(name)
    segment.buf[8] += 1
    segment.close()


def release_by_name(kind, limit, name):
    """As a process does that is spawned."""
    _multiprocessing.SemLock._rebuild(0, kind, limit, name).release()


def main():
    fork = multiprocessing.get_context("fork")
    segment = shared_memory.SharedMemory(create=True, size=SIZE)
    named = shared_memory.ShareableList([0, 0.0, "x" * 20])
    gone = shared_memory.SharedMemory(create=True, size=100)
    gone.buf[0] = 9
    gone.unlink()
    semaphore = multiprocessing.get_context("spawn").Semaphore(0)
    mode = os.stat("/dev/shm/" + segment.name).st_mode
    for r in range(int(sys.argv[1])):
        segment.buf[:8] = r.to_bytes(8, "little")
        segment.buf[SIZE - 1] = r % 256
        named[0], named[2] = r, f"round {r}"
        pyheap.epoch()
        assert int.from_bytes(segment.buf[:8], "little") == r, "it is of another time"
        assert segment.buf[SIZE - 1] == r % 256 and segment.buf[SIZE // 2] == 0
        assert list(named) == [r, 0.0, f"round {r}"] and gone.buf[0] == 9
        assert os.stat("/dev/shm/" + segment.name).st_mode == mode
        semaphore.release()
        assert semaphore.acquire(timeout=60) and not semaphore.acquire(block=False)
        segment.buf[8] = 5
        if r % 5 == 0:
            child = fork.Process(target=add_one, args=(segment.name,))
            child.start()
            child.join()
            assert segment.buf[8] == 6, "another process has another segment"
            of = semaphore._semlock
            child = fork.Process(target=release_by_name, args=(of.kind, of.maxvalue, of.name))
            child.start()
            child.join()
            assert child.exitcode == 0, "the semaphore has no name"
            assert semaphore.acquire(timeout=20), "another process has another semaphore"
        print("round", r, named[2])
    for one in (segment, named.shm):
        one.close()
        one.unlink()


main()
