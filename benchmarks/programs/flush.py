# SPDX-License-Identifier: MIT
"""Works on while the keeper writes a large epoch: how much slower?    flush.py MIB ROUNDS"""
import json
import os
import sys
import time

import numpy as np

import pyheap

TICKS = os.sysconf("SC_CLK_TCK")


def keeper_cpu(keeper):
    with open(f"/proc/{keeper}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def keeper_memory(keeper):
    """KiB: anonymous, file and shared memory, resident."""
    with open(f"/proc/{keeper}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return [int(fields[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")]


def count():
    total = 0
    for i in range(20000):
        total += i & 7
    return total


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main():
    mebibytes, rounds = int(sys.argv[1]), int(sys.argv[2])
    keeper = os.getppid()
    array = np.ones((mebibytes << 8, 4096), dtype=np.uint8)
    stream = np.ones(2 << 20, dtype=np.uint64)  # 16 MiB: out of the caches

    def add():
        np.add(stream, 1, out=stream)

    pyheap.epoch(wait=True)
    samples, memory = [], [0, 0, 0]
    for i in range(rounds):
        sample = {}
        for name, work in (("python", count), ("memory", add)):
            for _ in range(3):
                work()
            idle = [timed(work) for _ in range(100)]
            array[:, 100] += 1
            cpu = keeper_cpu(keeper)
            epoch = pyheap.epoch()
            work()  # the first pass also pays for tracking
            began, busy = time.perf_counter(), 0
            while pyheap.status()["durable"] < epoch:
                work()
                busy += 1
            during = (time.perf_counter() - began) / max(busy, 1)
            idle += [timed(work) for _ in range(100)]
            status = pyheap.status()
            sample[name] = {"idle": sum(idle) / len(idle), "during": during, "steps": busy,
                            "keeper_cpu": keeper_cpu(keeper) - cpu, "commit": status["commit"]}
            memory = [max(a, b) for a, b in zip(memory, keeper_memory(keeper))]
        samples.append(sample)
    status = pyheap.status()
    print(json.dumps({"samples": samples, "memory": memory, "pages": mebibytes << 8,
                      "staging": status["staging_size"]}))


main()
