# SPDX-License-Identifier: MIT
"""Anonymous private mappings made by the program: written, grown, unmapped; one behind a file's.

live: rounds=40
"""
import ctypes
import hashlib
import mmap
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def behind_a_file():
    """A page that begins as the second half of a lock might, where there is nothing before it: the
    mapping there is longer than its file."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    at = libc.mmap(None, 3 * 4096, 3, FLAGS, -1, 0)
    with open("short", "wb") as file:
        file.write(b"short")
    with open("short", "rb") as file:
        assert libc.mmap(at, 2 * 4096, 3, mmap.MAP_PRIVATE | 0x10, file.fileno(), 0) == at
    word = ctypes.c_uint64.from_address(at + 2 * 4096)
    word.value = 5
    return word


def main():
    rounds = int(sys.argv[1])
    word = behind_a_file()
    long_lived = mmap.mmap(-1, 1 << 20, flags=FLAGS)
    digest = hashlib.sha256()
    for r in range(rounds):
        short = mmap.mmap(-1, 4096 * (1 + r % 9), flags=FLAGS)
        short[:] = bytes([r % 251]) * len(short)
        at = r * 4093 % (len(long_lived) - 100)
        long_lived[at:at + 100] = bytes([r % 256]) * 100
        pyheap.epoch()
        assert short[:] == bytes([r % 251]) * len(short)
        assert long_lived[at:at + 100] == bytes([r % 256]) * 100
        assert word.value == 5
        for _ in range(5):
            digest.update(long_lived)
        short.close()
        if r % 10 == 0:
            print(r, digest.hexdigest()[:16])
    print("sha256", digest.hexdigest())


main()
