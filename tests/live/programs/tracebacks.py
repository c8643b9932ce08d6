# SPDX-License-Identifier: MIT
"""Exceptions that are being handled at the epoch, with tracebacks, causes and contexts.

live: rounds=60 exit=1
"""
import faulthandler
import sys
import traceback

try:
    import pyheap
except ImportError:
    import plain as pyheap


class Trouble(Exception):
    pass


def fail(depth, r):
    if depth == 0:
        return [][r]
    return fail(depth - 1, r)


def handle(r):
    try:
        fail(5 + r % 10, r)
    except IndexError as error:
        busy = sum(i * i for i in range(60000))
        pyheap.epoch()  # sys.exc_info() is the IndexError here
        assert sys.exc_info()[1] is error
        try:
            raise Trouble(r, busy) from error
        finally:
            error.seen = r


def names(error):
    return [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]


def main():
    faulthandler.enable()
    rounds = int(sys.argv[1])
    kept = []
    for r in range(rounds):
        try:
            handle(r)
        except Trouble as error:
            cause = error.__cause__
            assert cause is error.__context__ and cause.seen == r
            kept.append(error)
            if r % 20 == 0:
                print(r, error.args, names(error), len(names(cause)), cause)
    assert sys.exc_info() == (None, None, None)
    print(sum(len(names(error.__cause__)) for error in kept))
    raise SystemExit(1)


main()
