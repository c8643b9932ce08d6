# SPDX-License-Identifier: MIT
"""ctypes: closures in executable memory, epochs inside a callback from C, structures, thread-local
errno.

live: rounds=40
"""
import ctypes
import errno
import sys

import pyheap

libc = ctypes.CDLL(None, use_errno=True)
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int),
                           ctypes.POINTER(ctypes.c_int), use_errno=True)


class Link(ctypes.Structure):
    pass


Link._fields_ = [("n", ctypes.c_int), ("next", ctypes.POINTER(Link))]


def main():
    rounds = int(sys.argv[1])
    calls = 0

    @COMPARE
    def compare(a, b):
        nonlocal calls
        calls += 1
        if calls == 10:
            pyheap.epoch("inside qsort")
        return a[0] - b[0]

    closures = []
    links = []
    ctypes.set_errno(errno.ENOENT)
    for r in range(rounds):
        calls = 0
        numbers = (ctypes.c_int * 101)(*((i * 37 + r) % 101 for i in range(101)))
        libc.qsort(numbers, 101, 4, compare)
        assert list(numbers) == list(range(101))
        closures.append(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n, r=r: n + r))
        assert all(closure(1) == 1 + i for i, closure in enumerate(closures))
        link = Link(r)
        if links:
            link.next = ctypes.pointer(links[-1])
        links.append(link)
        assert ctypes.get_errno() == errno.ENOENT
        if r % 10 == 0:
            length, at = 1, link
            while at.next:
                length, at = length + 1, at.next[0]
            print(r, calls, length)


main()
