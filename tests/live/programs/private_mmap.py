# SPDX-License-Identifier: MIT
"""Anonymous private mappings made by the program: written, grown, unmapped.

live: rounds=40
"""
import hashlib
import mmap
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def main():
    rounds = int(sys.argv[1])
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
        for _ in range(5):
            digest.update(long_lived)
        short.close()
        if r % 10 == 0:
            print(r, digest.hexdigest()[:16])
    print("sha256", digest.hexdigest())


main()
