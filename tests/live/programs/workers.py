# SPDX-License-Identifier: MIT
"""multiprocessing's pools, executors, queues and locks, made before the epoch and after it, by fork,
by spawning and by a server; the program's numbers as its children and its log see them.

live: rounds=6
"""
import concurrent.futures
import logging
import multiprocessing
import os
import sys

try:
    import pyheap
except ImportError:
    try:
        import plain as pyheap
    except ImportError:  # a worker that was spawned
        pyheap = None


def work(n):
    return n * n


def parent(_):
    return os.getppid()


def fill(lock, queue, count):
    with lock:
        count.value += 1
    queue.put(os.getppid())


def main():
    pid = os.getpid()
    fork = multiprocessing.get_context("fork")
    lock, queue, count = fork.RLock(), fork.Queue(), fork.Value("i", 0)
    logging.basicConfig(format="%(process)d %(message)s", filename="log", filemode="w")
    with open("lock", "w", encoding="ascii") as file:
        file.write(str(pid))
    for r in range(int(sys.argv[1])):
        with fork.Pool(2) as pool:
            assert pool.map(work, range(9)) == [n * n for n in range(9)]
            assert set(pool.map(parent, range(9))) == {pid}
            pool.close()
            pool.join()
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as executor:
            assert list(executor.map(work, range(9))) == [n * n for n in range(9)]
        if r % 2 == 0:
            context = multiprocessing.get_context("forkserver" if r % 4 else "spawn")
            with context.Pool(1) as pool:
                assert pool.map(work, range(9)) == [n * n for n in range(9)]
                pool.close()
                pool.join()
        one = fork.Process(target=fill, args=(lock, queue, count))
        one.start()
        assert queue.get(timeout=60) == pid
        one.join()
        assert one.exitcode == 0
        print(r, count.value)
        pyheap.epoch()
        with open("lock", encoding="ascii") as file:
            os.kill(int(file.read()), 0)
        logging.warning("round %d", r)
        with open("log", encoding="ascii") as file:
            assert {line.split()[0] for line in file} == {str(pid)}
    logging.shutdown()
    os.unlink("log")
    os.unlink("lock")


if __name__ == "__main__":
    main()
