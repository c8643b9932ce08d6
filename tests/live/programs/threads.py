# SPDX-License-Identifier: MIT
"""Three threads with queues, a lock, an RLock held over epochs, and a Condition.

live: rounds=40 exit=4
"""
import queue
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap

jobs = queue.Queue(maxsize=8)
results = queue.Queue()
lock = threading.Lock()
owned = threading.RLock()
turn = threading.Condition()
counts = {"locked": 0, "owned": 0, "turns": 0}


def worker():
    """Takes numbers, answers with sums; the lock guards a plain counter."""
    while True:
        job = jobs.get()
        if job is None:
            return
        number, size = job
        total = sum(i * i for i in range(size))
        with lock:
            counts["locked"] += 1
        results.put((number, total))


def holder(stop):
    """Holds a reentrant lock, twice, nearly all the time: at most epochs it owns it."""
    with owned:
        while not stop.is_set():
            with owned:
                counts["owned"] += 1
                stop.wait(0.002)


def waiter(rounds):
    """Waits on the condition for each turn in order."""
    for wanted in range(1, rounds + 1):
        with turn:
            while counts["turns"] < wanted:
                turn.wait()


def main():
    rounds = int(sys.argv[1])
    stop = threading.Event()
    threads = [threading.Thread(target=worker), threading.Thread(target=holder, args=(stop,)),
               threading.Thread(target=waiter, args=(rounds,))]
    for thread in threads:
        thread.start()
    checksum = number = 0
    for r in range(rounds):
        for _ in range(10):
            jobs.put((number, 5000 + number % 7))
            number += 1
        pyheap.epoch(f"round {r}")
        with turn:
            counts["turns"] += 1
            turn.notify_all()
        for expected in range(number - 10, number):
            found, total = results.get()
            assert found == expected, f"answer {found} instead of {expected}"
            checksum = (checksum * 33 + total) % (2**61 - 1)
        if r % 10 == 0:
            print(r, checksum)
    jobs.put(None)
    stop.set()
    for thread in threads:
        thread.join()
    assert owned.acquire(blocking=False), "the RLock is not free"
    assert counts["locked"] == number and counts["turns"] == rounds and counts["owned"] > 0
    assert threading.active_count() == 1
    print("jobs", number, "checksum", checksum)


main()
sys.exit(4)
