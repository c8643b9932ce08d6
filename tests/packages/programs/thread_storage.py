# SPDX-License-Identifier: MIT
"""What belongs to a thread: pthread keys with destructors, threading.local with objects that are
finalized at the thread's end, context variables handed to other threads, joins without a time.

live: rounds=40
"""
import contextvars
import ctypes
import sys
import threading
import time

import pyheap

libc = ctypes.CDLL(None)
for name in ("pthread_getspecific", "pthread_setspecific"):
    getattr(libc, name).argtypes = [ctypes.c_uint, ctypes.c_void_p][:2 if "set" in name else 1]
libc.pthread_getspecific.restype = ctypes.c_void_p
destroyed, finalized, joined = [], [], []
where = contextvars.ContextVar("where", default="nowhere")
local = threading.local()


class Owned:
    def __init__(self, n):
        self.n = n

    def __del__(self):
        finalized.append(self.n)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def destructor(value):
    destroyed.append(value)


def owner(n, key, ready, go):
    libc.pthread_setspecific(key, 1000 + n)
    local.owned = Owned(n)
    where.set(n)
    ready.release()
    go.wait()
    assert libc.pthread_getspecific(key) == 1000 + n, "another value of the pthread key"
    assert local.owned.n == n == where.get()


def main():
    rounds = int(sys.argv[1])
    key = ctypes.c_uint()
    assert libc.pthread_key_create(ctypes.byref(key), destructor) == 0
    libc.pthread_setspecific(key, 77)
    where.set("main")
    for r in range(rounds):
        ready, go = threading.Semaphore(0), threading.Event()
        context = contextvars.copy_context()
        threads = [threading.Thread(target=context.copy().run, args=(owner, n, key, ready, go))
                   for n in range(4)]
        for thread in threads:
            thread.start()
        joiner = threading.Thread(target=lambda: joined.append([t.join() for t in threads]))
        joiner.start()
        for _ in threads:
            ready.acquire()
        pyheap.epoch()
        assert where.get() == "main" and libc.pthread_getspecific(key) == 77
        go.set()
        joiner.join()
        assert sorted(finalized) == [0, 1, 2, 3] and len(joined) == r + 1, finalized
        finalized.clear()
        if r % 10 == 0:
            print(r, context[where])
    deadline = time.monotonic() + 60
    while len(destroyed) < 4 * rounds:  # joined a moment before its destructors have run
        assert time.monotonic() < deadline, f"{len(destroyed)} destructors of {4 * rounds}"
        time.sleep(0.001)
    assert sum(destroyed) == rounds * 4006, destroyed[:10]


main()
