# SPDX-License-Identifier: MIT
"""Threads blocked in select, poll, epoll, a read of a pipe, an accept-less socketpair, a lock, a
condition, a semaphore, a timed join and a sleep; all of them wake up properly in the end.

live: rounds=40
"""
import os
import select
import socket
import sys
import threading
import time

import pyheap

LONG = 3000.0
woken = {}


def blocked(name, wait):
    woken[name] = wait()


def pipe_with(waits):
    out, into = os.pipe()
    return (lambda: waits(out)), (lambda: os.write(into, b"x"))


def poll_on(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(LONG * 1000))


def epoll_on(fd):
    with select.epoll() as poll:
        poll.register(fd, select.EPOLLIN | select.EPOLLET)
        return bool(poll.poll(LONG))


def everything():
    """{name: (how to block, how to wake)}"""
    left, right = socket.socketpair()
    lock, condition = threading.Lock(), threading.Condition()
    semaphore, event, barrier = threading.Semaphore(0), threading.Event(), threading.Barrier(2)
    lock.acquire()

    def in_condition():
        with condition:
            return condition.wait(LONG)

    def notify():
        with condition:
            condition.notify()

    sleeper = threading.Thread(target=event.wait, args=(LONG,), daemon=True)
    sleeper.start()
    return {"select": pipe_with(lambda fd: bool(select.select([fd], [], [], LONG)[0])),
            "poll": pipe_with(poll_on), "epoll": pipe_with(epoll_on),
            "read": pipe_with(lambda fd: os.read(fd, 1) == b"x"),
            "recv": (lambda: left.recv(10) == b"hello", lambda: right.send(b"hello")),
            "lock": (lock.acquire, lock.release),
            "timed lock": (lambda: semaphore.acquire(timeout=LONG), semaphore.release),
            "condition": (in_condition, notify),
            "barrier": (lambda: barrier.wait(LONG) >= 0, lambda: barrier.wait(LONG)),
            "join": (lambda: sleeper.join(LONG) is None, event.set),
            "sleep": (lambda: time.sleep(0.02) is None, lambda: None)}


def main():
    rounds = int(sys.argv[1])
    for r in range(rounds):
        woken.clear()
        states = everything()
        threads = [threading.Thread(target=blocked, args=(name, wait))
                   for name, (wait, _) in states.items()]
        for thread in threads:
            thread.start()
        time.sleep(0.002 * (r % 3))  # some have not yet blocked
        pyheap.epoch()
        for _, wake in states.values():
            wake()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread} does not wake up"
        assert all(woken.values()) and woken.keys() == states.keys(), woken
        states.clear()
        for fd in range(3, 200):  # pipes of this round
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                    os.close(fd)
            except OSError:
                pass
        if r % 10 == 0:
            print(r, len(woken))


main()
