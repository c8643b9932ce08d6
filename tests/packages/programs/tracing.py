# SPDX-License-Identifier: MIT
"""sys.settrace, sys.setprofile, tracemalloc, faulthandler with a timer, contextvars, gc callbacks:
all in force over the epochs.

live: rounds=40
"""
import contextvars
import faulthandler
import gc
import sys
import threading
import tracemalloc
import weakref

import pyheap

lines, calls, collections = 0, 0, 0
level = contextvars.ContextVar("level", default=0)


def trace(frame, event, arg):
    global lines
    if frame.f_code.co_name == "traced":
        lines += event == "line"
        return trace
    return None


def profile(frame, event, arg):
    global calls
    calls += event == "call" and frame.f_code.co_name == "traced"


def collected(phase, info):
    global collections
    collections += phase == "stop" and info["generation"] == 2


def traced(r):
    a = r
    pyheap.epoch()
    b = a + 1
    return b


def ring():
    a = type("Ring", (), {})()
    a.self = a
    return a


def main():
    rounds = int(sys.argv[1])
    tracemalloc.start(5)
    faulthandler.enable()
    faulthandler.dump_traceback_later(3600, repeat=True)
    gc.disable()
    gc.callbacks.append(collected)
    threading.settrace(trace)
    kept, gone = [], []
    before = tracemalloc.take_snapshot()
    for r in range(rounds):
        context = contextvars.copy_context()
        context.run(level.set, r)
        finalized = []
        cycle = ring()
        weakref.finalize(cycle, finalized.append, r)
        del cycle  # garbage that nobody has collected when the epoch comes
        sys.settrace(trace)
        sys.setprofile(profile)
        result = traced(r)
        sys.setprofile(None)
        sys.settrace(None)
        assert result == r + 1 and lines == 4 * (r + 1) and calls == r + 1
        assert context[level] == r and level.get() == 0
        kept.append(bytearray(10_000))
        assert tracemalloc.get_object_traceback(kept[r // 2]) is not None
        gc.collect()
        gone += finalized
        assert collections == r + 1
        if r % 10 == 0:
            print(r, lines, calls, len(gone))
    grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
    assert max(s.size_diff for s in grown) >= 10_000 * rounds
    faulthandler.cancel_dump_traceback_later()
    assert gone == list(range(rounds))


main()
