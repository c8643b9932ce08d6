# SPDX-License-Identifier: MIT
"""Closures, generators, coroutines and asynchronous generators, suspended at the epoch.

live: rounds=60
"""
import functools
import itertools
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def counter():
    count = 0

    def step(by):
        nonlocal count
        count += by
        return count

    return step


def tree(depth):
    """A generator that delegates, so many frames are suspended at once."""
    yield depth
    if depth:
        yield from tree(depth - 1)
        yield from tree(depth - 1)


def averager():
    """A generator that is sent values."""
    total = n = 0
    while True:
        value = yield (total / n if n else 0.0)
        total, n = total + value, n + 1


class Pause:
    """Awaiting it suspends the whole stack of coroutines."""

    def __await__(self):
        return (yield "pause")


async def ticks():
    n = 0
    while True:
        sent = await Pause()
        n += sent
        yield n


async def walk():
    total = 0
    async for n in ticks():
        total += n
        if total < 0:
            return total


async def outer():
    return await walk()


def main():
    rounds = int(sys.argv[1])
    step = counter()
    walker = itertools.cycle(tree(12))
    mean = averager()
    next(mean)
    coroutine = outer()
    assert coroutine.send(None) == "pause"
    partial = functools.partial(pow, 3, mod=1000003) if sys.version_info >= (3, 8) else None
    checksum = 0
    for r in range(rounds):
        pairs = zip(itertools.accumulate(range(r + 100)), map(str, itertools.count(r)))
        next(pairs)
        for _ in range(2000):
            checksum = (checksum * 31 + next(walker) + step(1)) % (2**61 - 1)
            mean.send(float(r))
        pyheap.epoch()
        assert coroutine.send(r) == "pause"
        checksum = (checksum + partial(exp=r) + len(list(pairs))) % (2**61 - 1)
        if r % 20 == 0:
            print(r, checksum, mean.send(0.0))
    frames = coroutine.cr_frame.f_lasti >= 0
    coroutine.close()
    print("end", checksum, step(0), frames)


main()
