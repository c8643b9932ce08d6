# SPDX-License-Identifier: MIT
"""faulthandler: a dump that is due in a while, dumps by signal, and the stacks that signals use.

live: rounds=40
"""
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    import plain as pyheap

PATIENCE = 60


class Stack(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.base, stack.flags, stack.size


def grows(file, by):
    """What is written to the file from `by` on, once it is there."""
    deadline = time.time() + PATIENCE
    while os.fstat(file.fileno()).st_size <= by:
        assert time.time() < deadline, "nothing was dumped"
        time.sleep(0.001)


def empty(file):
    file.seek(0)
    file.truncate()


def main():
    faulthandler.enable()
    stack = signal_stack()
    far, due, asked = (open(name, "w+") for name in ("far", "due", "asked"))
    faulthandler.register(signal.SIGUSR1, asked)
    released = threading.Event()
    thread = threading.Thread(target=released.wait)
    thread.start()
    for r in range(int(sys.argv[1])):
        if r % 2:
            faulthandler.dump_traceback_later(5000, file=far)
        else:
            faulthandler.dump_traceback_later(0.02, repeat=True, file=due)
        pyheap.epoch()
        assert signal_stack() == stack
        os.kill(os.getpid(), signal.SIGUSR1)
        grows(asked, 0)
        if r % 2 == 0:
            grows(due, 0)
        faulthandler.cancel_dump_traceback_later()
        for file in (due, asked):
            empty(file)
        assert os.fstat(far.fileno()).st_size == 0, "too soon"
        if r % 10 == 0:
            print("round", r)
    released.set()
    thread.join()


main()
