# SPDX-License-Identifier: MIT
"""gevent: greenlets switched with stacks that are copied, timers, queues, its pool of threads, a
socket pair, the patched standard library.

live: rounds=40 epochs=2 needs=gevent
"""
from gevent import monkey

monkey.patch_all()

import queue  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
import gevent.event  # noqa: E402
import gevent.pool  # noqa: E402
import pyheap  # noqa: E402


def ticker(counts):
    while True:
        gevent.sleep(0.001)
        counts["ticks"] += 1


def deep(n, wait):
    return 1 + deep(n - 1, wait) if n else wait()


def echo(sock):
    while data := sock.recv(100):
        sock.sendall(data.upper())


def main():
    rounds = int(sys.argv[1])
    ours, theirs = socket.socketpair()
    echoing = gevent.spawn(echo, theirs)
    counts = {"ticks": 0}
    ticking = gevent.spawn(ticker, counts)
    work, results = queue.Queue(), queue.Queue()

    def worker():
        while (n := work.get()) is not None:
            results.put(n * n)

    thread = threading.Thread(target=worker)
    thread.start()
    pool = gevent.get_hub().threadpool
    for r in range(rounds):
        gate = gevent.event.Event()
        waiting = [gevent.spawn(deep, n, lambda: int(gate.wait(1000))) for n in (3, 30, 60)]
        ours.sendall(b"line %d" % r)
        work.put(r)
        time.sleep(0)
        before = counts["ticks"]
        pyheap.epoch("in a greenlet")
        gate.set()
        assert [g.get(timeout=60) for g in waiting] == [4, 31, 61]
        assert ours.recv(100) == b"LINE %d" % r
        assert results.get(timeout=60) == r * r
        assert pool.apply(pyheap.epoch, ("in a thread of the pool",)) >= 0
        while counts["ticks"] == before:
            time.sleep(0.001)
        if r % 10 == 0:
            print(r, len(waiting))
    work.put(None)
    thread.join()
    ticking.kill()
    ours.close()
    echoing.join()
    print("ended")


main()
