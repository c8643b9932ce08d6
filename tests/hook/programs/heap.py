# SPDX-License-Identifier: MIT
"""
All that Python allocates lies in the heap, and nothing is freed through the wrong door. Where
there is no interpreter lock that is what it allocates for itself alone, not objects.
"""
import ctypes
import sys
import threading

import pyheap

HEAP = range(0x200000000000, 0x2a0000000000)


FREE = "t" in sys.abiflags


def inside(*objects):
    return all((id(thing) in HEAP) != FREE for thing in objects)


def recurse(depth):
    return depth if depth == 0 else 1 + recurse(depth - 1)


assert inside(object(), 10**50, "x" * 100, b"y" * 10**7, [], {}, sys._getframe(), lambda: 0)
buffer = bytearray(10**7)
assert ctypes.addressof((ctypes.c_char * 1).from_buffer(buffer)) in HEAP or FREE
assert inside(*[[n] for n in range(100_000)])
assert recurse(900) == 900  # chunks of frames come from the arena allocator


def work(results):
    data = {n: [str(n)] * (n % 7) for n in range(20_000)}
    for n in range(0, 20_000, 3):
        del data[n]
    text = ""
    for n in range(20_000):
        text += "ab"  # resizes in place, across all sizes
    results.append((len(data), len(text)))


results = []
threads = [threading.Thread(target=work, args=(results,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert results == [(13_333, 40_000)] * 4

for domain in ("PyMem_Raw",) if FREE else ("PyMem_Raw", "PyMem_", "PyObject_"):
    api = {}
    for name in ("Malloc", "Calloc", "Realloc"):
        api[name] = getattr(ctypes.pythonapi, domain + name)
        api[name].restype = ctypes.c_void_p
    free = getattr(ctypes.pythonapi, domain + "Free")
    api["Calloc"].argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    api["Malloc"].argtypes = [ctypes.c_size_t]
    api["Realloc"].argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    free.argtypes = [ctypes.c_void_p]

    empty = [api["Malloc"](0), api["Malloc"](0), api["Calloc"](0, 8), api["Realloc"](None, 0)]
    assert len(set(empty)) == 4 and all(p in HEAP for p in empty), (domain, empty)
    too_much = sys.maxsize + 1
    assert api["Malloc"](too_much) is None
    assert api["Calloc"](too_much, 1) is None and api["Calloc"](2**33, 2**33) is None
    assert api["Realloc"](empty[0], too_much) is None
    assert api["Malloc"](sys.maxsize) is None

    for size in (1, 24, 500, 5000, 300_000, 3_000_000):  # calloc clears what was used before
        used = [api["Malloc"](size) for _ in range(20)]
        for p in used:
            ctypes.memset(p, 0xAA, size)
        for p in used:
            free(p)
        for _ in range(20):
            p = api["Calloc"](1, size)
            assert p % 16 == 0 and not any(ctypes.string_at(p, size)), (domain, size)
            free(p)

    p = api["Malloc"](10)
    ctypes.memmove(p, b"0123456789", 10)
    for size in (100, 5000, 400_000, 5_000_000, 70_000, 300, 10):
        p = api["Realloc"](p, size)
        assert p in HEAP and ctypes.string_at(p, 10) == b"0123456789", (domain, size)
    free(p)
    for p in empty:
        free(p)
    free(None)

assert pyheap._hook() == {"in_force": True, "foreign": 0}, pyheap._hook()
print("ok")
