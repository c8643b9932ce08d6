# SPDX-License-Identifier: MIT
"""sys.monitoring: two tools with callbacks for lines, calls, raises and branches, local events of one
function, events that were disabled; an epoch from a callback.

live: rounds=40 epochs=2 python=3.12
"""
import sys

import pyheap

monitoring = sys.monitoring
events = monitoring.events
counts = dict.fromkeys(("line", "start", "raise", "once"), 0)


def counted(n):
    total = 0
    for i in range(n):
        total += i
    try:
        raise ValueError(n)
    except ValueError:
        pass
    return total


def line(code, number):
    counts["line"] += 1


def start(code, offset):
    counts["start"] += 1
    pyheap.epoch("in a callback")


def raised(code, offset, error):
    counts["raise"] += isinstance(error, ValueError) and code is counted.__code__


def once(code, offset):
    counts["once"] += 1
    return monitoring.DISABLE


def main():
    rounds = int(sys.argv[1])
    monitoring.use_tool_id(3, "first")
    monitoring.use_tool_id(4, "second")
    monitoring.register_callback(3, events.LINE, line)
    monitoring.register_callback(3, events.PY_START, start)
    monitoring.register_callback(3, events.RAISE, raised)
    monitoring.register_callback(4, events.PY_START, once)
    monitoring.set_local_events(3, counted.__code__, events.LINE | events.PY_START)
    monitoring.set_local_events(4, counted.__code__, events.PY_START)
    monitoring.set_events(3, events.RAISE)
    lines = 0
    for r in range(rounds):
        before = counts["line"]
        assert counted(5) == 10
        lines = lines or counts["line"] - before
        assert counts["line"] - before == lines, "another number of lines"
        pyheap.epoch()
        assert monitoring.get_tool(4) == "second"
        assert (counts["start"], counts["raise"], counts["once"]) == (r + 1, r + 1, 1), counts
        if r % 10 == 0:
            print(r, counts)
    monitoring.free_tool_id(3)


main()
