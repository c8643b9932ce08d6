# SPDX-License-Identifier: MIT
"""Large blocks of libc's allocator lie in the heap, small ones do not, and all behave as libc's."""
import ctypes
import errno
import random
import threading

HEAP = range(0x200000000000, 0x2a0000000000)
LARGE = 256 << 10
libc = ctypes.CDLL(None, use_errno=True)
size_t, pointer = ctypes.c_size_t, ctypes.c_void_p


def function(name, *arguments, result=pointer):
    found = getattr(libc, name)
    found.argtypes, found.restype = arguments, result
    return found


malloc = function("malloc", size_t)
calloc = function("calloc", size_t, size_t)
realloc = function("realloc", pointer, size_t)
reallocarray = function("reallocarray", pointer, size_t, size_t)
memalign = function("memalign", size_t, size_t)
aligned_alloc = function("aligned_alloc", size_t, size_t)
posix_memalign = function("posix_memalign", ctypes.POINTER(pointer), size_t, size_t,
                          result=ctypes.c_int)
valloc = function("valloc", size_t)
pvalloc = function("pvalloc", size_t)
usable_size = function("malloc_usable_size", pointer, result=size_t)
free = function("free", pointer, result=None)


def posix(alignment, size):
    out = pointer(1)
    error = posix_memalign(ctypes.byref(out), alignment, size)
    return out.value if error == 0 else -error


kinds = {
    "malloc": malloc,
    "calloc": lambda size: calloc(1, size),
    "realloc": lambda size: realloc(None, size),
    "reallocarray": lambda size: reallocarray(None, 1, size),
    "memalign": lambda size: memalign(64, size),
    "memalign, huge alignment": lambda size: memalign(4 << 20, size),
    "aligned_alloc": lambda size: aligned_alloc(4096, size),
    "posix_memalign": lambda size: posix(1 << 16, size),
    "valloc": valloc,
    "pvalloc": pvalloc,
}
alignments = {"memalign": 64, "memalign, huge alignment": 4 << 20, "aligned_alloc": 4096,
              "posix_memalign": 1 << 16, "valloc": 4096, "pvalloc": 4096}

for name, allocate in kinds.items():
    for size in (1, 1000, LARGE - 4096, LARGE, LARGE + 1, 5 << 20):
        p = allocate(size)
        assert p, (name, size)
        assert (p in HEAP) == (size >= LARGE), (name, size, hex(p))
        assert p % alignments.get(name, 16) == 0, (name, size, hex(p))
        assert usable_size(p) >= size, (name, size)
        ctypes.memset(p, 0x5A, usable_size(p))
        free(p)
assert usable_size(None) == 0
assert not any(ctypes.string_at(calloc(7, LARGE), 7 * LARGE))

# Failures are libc's.
for name, allocate in kinds.items():
    for size in (2**63, 2**64 - 1, 2**64 - 4096, 2**62, 2**47):
        ctypes.set_errno(0)
        p = allocate(size)
        if name == "posix_memalign":
            assert p == -errno.ENOMEM, (name, size, p)
        else:
            assert p is None and ctypes.get_errno() == errno.ENOMEM, (name, size, p)
for bad in (0, 3, 4, 24):
    assert posix(bad, LARGE) == posix(bad, 10) == -errno.EINVAL, bad
for n, size in ((2**33, 2**33), (2**63, 2)):
    ctypes.set_errno(0)
    assert calloc(n, size) is None and ctypes.get_errno() == errno.ENOMEM
    p = malloc(LARGE)
    ctypes.memset(p, 7, LARGE)
    ctypes.set_errno(0)
    assert reallocarray(p, n, size) is None and ctypes.get_errno() == errno.ENOMEM
    assert ctypes.string_at(p, LARGE) == b"\7" * LARGE  # a failure leaves the block alone
    free(p)
for size in (10, LARGE):
    p = malloc(size)
    assert realloc(p, 2**62) is None
    ctypes.set_errno(1234)
    assert realloc(p, 0) is None  # frees
    free(malloc(size))
    free(None)
    assert ctypes.get_errno() == 1234


# Blocks that grow and shrink across the border keep what they hold.
def resize(seed):
    chance = random.Random(seed)
    held = {}
    for _ in range(600):
        size = chance.choice((chance.randrange(1, 2000), chance.randrange(1, 3 * LARGE)))
        if held and chance.random() < 0.7:
            p, old = held.popitem()
            kept = min(old, size)
            moved = realloc(p, size)
            assert ctypes.string_at(moved, kept) == pattern[:kept], (old, size)
        else:
            moved = malloc(size)
        ctypes.memmove(moved, pattern, size)
        held[moved] = size
        if len(held) > 8:
            p = next(iter(held))
            assert ctypes.string_at(p, held[p]) == pattern[:held.pop(p)]
            free(p)
    for p, size in held.items():
        assert ctypes.string_at(p, size) == pattern[:size]
        free(p)
    done.append(seed)


pattern = random.Random(1).randbytes(3 * LARGE)
done = []
threads = [threading.Thread(target=resize, args=(seed,)) for seed in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(done) == [0, 1, 2]

try:
    import numpy
except ImportError:
    pass
else:
    grid = numpy.zeros((300, 300))
    assert grid.ctypes.data in HEAP and not grid.any()
    assert numpy.empty(10**6).ctypes.data in HEAP
    assert (numpy.ones((400, 400)) @ numpy.ones((400, 400)) == 400).all()
print("ok")
