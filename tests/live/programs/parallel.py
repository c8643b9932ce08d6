# SPDX-License-Identifier: MIT
"""Threads that are in the middle of a bytecode at each epoch where there is no interpreter lock:
what they share is counted by all of them, and garbage of cycles is collected beside them. Two
threads take epochs at the same moment.

live: rounds=30 epochs=2
"""
import gc
import hashlib
import sys
import threading
import time
import weakref

try:
    import pyheap
except ImportError:
    import plain as pyheap

WORKERS = 3
shared = {"list": [], "words": {n: [str(n)] for n in range(50)}, "seen": set()}
lock = threading.Lock()
allowed = 0
done = [0] * WORKERS
collected = [0] * WORKERS


class Node:
    """One of a ring that only the collector frees."""

    def __init__(self, owner, following=None):
        self.owner = owner
        self.following = following


def letters(words):
    """Suspended between steps; each holds references to what others hold, too."""
    while True:
        for word in words:
            yield word[0]


def note(owner):
    with lock:
        collected[owner] += 1


def worker(number, limit):
    digest = hashlib.sha256()
    text = letters(shared["words"].values())
    for step in range(limit):
        while step >= allowed:
            time.sleep(0.0005)
        mine = {}
        for i in range(300):
            word = next(text)
            mine[word, i] = shared["words"][(i * 7 + step) % 50]
        first = Node(number)
        first.following = Node(number, first)
        weakref.finalize(first, note, number)
        del first
        try:
            mine["missing"]
        except KeyError as error:
            digest.update(repr(error).encode())
        digest.update(repr(sorted(mine, key=str)[step % 300]).encode())
        with lock:
            shared["list"].append((number, step))
        shared["seen"].add((number, step))
        done[number] = step + 1
    shared[f"digest {number}"] = digest.hexdigest()


def taker(rounds, start):
    for _ in range(rounds):
        start.wait()
        pyheap.epoch("beside")


def main():
    global allowed
    rounds = int(sys.argv[1])
    start = threading.Barrier(2)
    limit = 3 * rounds
    threads = [threading.Thread(target=worker, args=(n, limit)) for n in range(WORKERS)]
    threads.append(threading.Thread(target=taker, args=(rounds, start)))
    for thread in threads:
        thread.start()
    for r in range(rounds):
        allowed += 3
        start.wait()
        pyheap.epoch(f"round {r}")
        while min(done) < allowed - 3:
            time.sleep(0.0005)
        if r % 10 == 0:
            gc.collect()
            print(r, flush=True)
    for thread in threads:
        thread.join()
    gc.collect()
    assert sorted(shared["list"]) == [(n, s) for n in range(WORKERS) for s in range(limit)]
    assert shared["seen"] == set(shared["list"])
    assert collected == [limit] * WORKERS, collected
    for n in range(WORKERS):
        print(shared[f"digest {n}"])
    print(sys.getrefcount(shared["words"][0]))


main()
