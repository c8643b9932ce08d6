# SPDX-License-Identifier: MIT
"""Suspended in the middle: async generators, an ExitStack that unwinds, a generator that is closed,
a chain of exceptions, recursion near its limit in Python and in C code.

live: rounds=30 epochs=5
"""
import contextlib
import functools
import json
import sys
import traceback

import pyheap


async def numbers(n, closed):
    try:
        for i in range(n):
            yield i
    finally:
        closed.append(pyheap.epoch("in aclose") >= 0)


def drive(coroutine):
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("waited")


@contextlib.contextmanager
def noted(name, notes):
    notes.append(name)
    try:
        yield name
    finally:
        if name == 1:
            pyheap.epoch("while a stack unwinds")
        notes.append(-name)


def chained():
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as second:
        pyheap.epoch("while an exception is handled")
        raise RuntimeError("third") from second


def down(n):
    if n == 0:
        pyheap.epoch("deep down")
        return 0
    return functools.partial(down, n - 1)() + 1  # a call through C at each step


def nest(n):
    value = []
    for _ in range(n):
        value = [value]
    return value


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        closed, notes = [], []
        generator = numbers(10, closed)
        assert drive(generator.__anext__()) == 0
        with contextlib.ExitStack() as stack:
            for name in (3, 2, 1):
                stack.enter_context(noted(name, notes))
            pyheap.epoch()
            assert drive(generator.__anext__()) == 1
        assert notes == [3, 2, 1, -1, -2, -3]
        drive(generator.aclose())
        assert closed == [True]
        try:
            chained()
        except RuntimeError as error:
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            assert text.count("Traceback") == 3 and error.__cause__.__cause__.args == ("first",)
        sys.setrecursionlimit(2000)
        assert down(600) == 600
        try:
            down(10_000)
        except RecursionError:
            pass
        deep = json.dumps(nest(500))
        assert json.loads(deep) == nest(500)
        sys.setrecursionlimit(1000)
        if r % 10 == 0:
            print(r, len(text) > 100, len(deep))


main()
