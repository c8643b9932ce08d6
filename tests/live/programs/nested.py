# SPDX-License-Identifier: MIT
"""Nested calls that hold live generators, inside try/finally and with, four calls deep.

live: rounds=60 exit=3
"""
import contextlib
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

events = []


def squares():
    n = 0
    try:
        while True:
            yield n * n
            n += 1
    finally:
        events.append(f"squares closed at {n}")


@contextlib.contextmanager
def scope(name):
    events.append(f"enter {name}")
    try:
        yield name.upper()
    finally:
        events.append(f"leave {name}")


def inner(numbers, local):
    total = sum(next(numbers) for _ in range(20000))
    before = dict(local)
    pyheap.epoch()
    assert before == local, "locals changed over the epoch"
    return total


def middle(r, numbers):
    with scope(f"round {r}") as name:
        try:
            local = {"name": name, "r": r, "list": list(range(r % 50))}
            return inner(numbers, local) + len(local["list"])
        finally:
            events.append(f"finally {r}")


def main():
    rounds = int(sys.argv[1])
    numbers = squares()
    checksum = 0
    for r in range(rounds):
        checksum = (checksum * 31 + middle(r, numbers)) % (2**61 - 1)
        if r % 10 == 0:
            print(r, checksum, events[-3:])
    numbers.close()
    assert len(events) == 3 * rounds + 1
    print("events", len(events), events[-1], "checksum", checksum)


main()
sys.exit(3)
