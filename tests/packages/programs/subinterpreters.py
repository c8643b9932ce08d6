# SPDX-License-Identifier: MIT
"""Sub-interpreters, with their own GIL where the version has that: idle ones and ones that run in
threads while epochs are taken.

live: rounds=30
"""
import os
import sys
import threading

import pyheap

try:
    import _interpreters as interpreters  # 3.13
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string


def busy(one, pipe, stop):
    """Counts in the interpreter, in turns, until told to end; then its end of the pipe is closed."""
    n = 0
    while not stop.is_set():
        run(one, f"n = sum(i * i for i in range(2000)); import os; os.write({pipe}, b'x')")
        n += 1
    os.close(pipe)


def main():
    rounds = int(sys.argv[1])
    idle, working = interpreters.create(), interpreters.create()
    run(idle, "import json; kept = {'n': 0}")
    out, into = os.pipe()
    stop = threading.Event()
    thread = threading.Thread(target=busy, args=(working, into, stop))
    thread.start()
    answers, answer = os.pipe()
    for r in range(rounds):
        os.read(out, 1)
        pyheap.epoch()
        run(idle, f"kept['n'] += {r}; import os; os.write({answer}, b'%d\\n' % kept['n'])")
        assert int(os.read(answers, 100)) == r * (r + 1) // 2
        if r % 7 == 0:
            short = interpreters.create()
            run(short, "import collections; x = collections.Counter('abc')")
            interpreters.destroy(short)
        if r % 10 == 0:
            print(r, "ok")
    stop.set()
    while os.read(out, 1 << 16):  # or a full pipe would keep the thread
        pass
    thread.join()
    for one in (idle, working):
        interpreters.destroy(one)
    print("ended")


main()
