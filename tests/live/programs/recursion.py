# SPDX-License-Identifier: MIT
"""Epochs at the bottom of and on the way up from deep recursion, in a thread with a big stack.

live: rounds=30 epochs=2
"""
import sys
import threading

try:
    import pyheap
except ImportError:
    import plain as pyheap


class Node:
    """Comparing two of them recurses through C and Python in turns."""

    def __init__(self, value, rest):
        self.value, self.rest = value, rest

    def __eq__(self, other):
        return self.value == other.value and [self.rest] == [other.rest]


def chain(length):
    node = None
    for i in range(length):
        node = Node(i, node)
    return node


def dive(depth, deepest):
    here = [depth]
    if depth == deepest:
        pyheap.epoch("at the bottom")
        return 1
    below = dive(depth + 1, deepest)
    if depth == deepest // 2:
        pyheap.epoch("halfway up")
    assert here == [depth]
    return below + 1


finished = []


def work(rounds):
    total = 0
    for r in range(rounds):
        total += dive(0, 3000 + r % 100)
        a, b = chain(100), chain(100)  # CPython 3.12 allows fewer C calls in threads
        assert a == b
        if r % 10 == 0:
            print(r, total)
    print("total", total)
    finished.append(True)


def main():
    sys.setrecursionlimit(20000)
    threading.stack_size(256 << 20)
    thread = threading.Thread(target=work, args=(int(sys.argv[1]),))
    thread.start()
    thread.join()
    assert finished


main()
