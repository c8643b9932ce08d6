# SPDX-License-Identifier: MIT
"""Changes some pages, takes an epoch, copies the same pages once; again and again, for each
PAGES:STEP in turn.

    pause.py MIB ROUNDS COPY_FILE PAGES:STEP... [--direct FILE]

The array has MIB mebibytes. PAGES pages are changed, every STEP-th. COPY_FILE, on a tmpfs, is
mapped shared: the copy's destination, which is not part of an epoch and is as warm as the
staging ring. With --direct the same bytes are also written to FILE with O_DIRECT and made
durable. Reports a list of samples for each PAGES:STEP, and as PAGES:STEP:first the first one
after what was before, which is not among them, nor are the next few: what changes in every epoch
is treated otherwise than what begins to. Before all that some seconds pass, as they do in any
program that epochs are taken of, in which the pool gets its copies of the libraries.
"""
import json
import mmap
import os
import sys
import time

import numpy as np

import pyheap

PAGE = 4096
WRITE = 8 << 20
FEW = 8
SETTLING = 5  # seconds


def shared_memory(path, size):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    os.close(fd)
    array = np.frombuffer(memory, dtype=np.uint8).reshape(-1, PAGE)
    array[:, 0] = 1
    return memory, array


def write_direct(path, memory, size):
    """Seconds to write @p size bytes in sequence, past the page cache, to the medium."""
    with memoryview(memory) as view:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o600)
        started = time.perf_counter()
        at = 0
        while at < size:
            with view[at : min(at + WRITE, size)] as piece:
                at += os.write(fd, piece)
        os.fdatasync(fd)
        seconds = time.perf_counter() - started
        os.close(fd)
        os.unlink(path)
    return seconds


def main():
    mebibytes, rounds, copy_file, *cases = sys.argv[1:]
    direct = None
    if "--direct" in cases:
        at = cases.index("--direct")
        direct, cases = cases[at + 1], cases[:at]
    cases = [tuple(int(n) for n in case.split(":")) for case in cases]
    pages = (int(mebibytes) << 20) // PAGE
    array = np.empty((pages, PAGE), dtype=np.uint8)
    array[:] = np.arange(PAGE, dtype=np.uint8)
    array[:, :8] = np.arange(pages, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    most = max(max(count for count, _ in cases), 1)
    memory, copy = shared_memory(copy_file, most * PAGE)
    samples = {f"{count}:{step}": [] for count, step in cases}
    pyheap.epoch(wait=True)
    time.sleep(SETTLING)
    for count, step in cases:
        for i in range(-FEW, int(rounds)):
            some = array[: count * step : step]
            some[:, 100] += 1
            started, cpu = time.perf_counter(), time.thread_time()
            pyheap.epoch()
            call, cpu = time.perf_counter() - started, time.thread_time() - cpu
            pyheap.sync()
            status = pyheap.status()
            started = time.perf_counter()
            copy[:count] = some
            copied = time.perf_counter() - started
            sample = {name: status[name] for name in
                      ("pause", "wait", "commit", "pages_staged", "pages_written",
                       "bytes_written")}
            sample.update(call=call, cpu=cpu, copy=copied)
            if direct and i >= 0:
                sample["direct"] = write_direct(direct, memory, count * PAGE)
            if i == -FEW:
                samples[f"{count}:{step}:first"] = [sample]
            if i >= 0:
                samples[f"{count}:{step}"].append(sample)
    print(json.dumps(samples))


main()
