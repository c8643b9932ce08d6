# SPDX-License-Identifier: MIT
"""cffi: owned memory, handles, and epochs inside a callback that libc's qsort has called.

live: rounds=40 needs=cffi
"""
import sys

import cffi
import pyheap

ffi = cffi.FFI()
ffi.cdef("""
    void qsort(void *, size_t, size_t, int (*)(const void *, const void *));
    typedef struct { int n; double x; char name[16]; } thing;
""")
libc = ffi.dlopen(None)


def main():
    rounds = int(sys.argv[1])
    calls = 0

    @ffi.callback("int(const void *, const void *)")
    def compare(a, b):
        nonlocal calls
        calls += 1
        if calls == 10:
            pyheap.epoch("inside qsort")
        return ffi.cast("int *", a)[0] - ffi.cast("int *", b)[0]

    things = ffi.new("thing[]", 10)
    owner = ["kept alive"]
    handle = ffi.new_handle(owner)
    pointer = ffi.cast("void *", handle)
    for r in range(rounds):
        calls = 0
        numbers = ffi.new("int[]", [(i * 37 + r) % 101 for i in range(101)])
        libc.qsort(numbers, 101, 4, compare)
        assert list(numbers) == list(range(101))
        things[r % 10].n += r
        things[r % 10].name = b"thing %d" % (r % 10)
        assert ffi.from_handle(pointer) is owner
        if r % 10 == 0:
            print(r, things[r % 10].n, ffi.string(things[r % 10].name).decode(), calls)


main()
