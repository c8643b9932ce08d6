# SPDX-License-Identifier: MIT
"""Anonymous shared mappings, which is what mmap.mmap(-1, n) makes unless told otherwise.

live: rounds=40
"""
import hashlib
import mmap
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def main():
    rounds = int(sys.argv[1])
    shared = mmap.mmap(-1, 1 << 20)
    digest = hashlib.sha256()
    for r in range(rounds):
        at = r * 4093 % (len(shared) - 100)
        shared[at:at + 100] = bytes([r % 256]) * 100
        pyheap.epoch()
        assert shared[at:at + 100] == bytes([r % 256]) * 100
        for _ in range(5):
            digest.update(shared)
        if r % 10 == 0:
            print(r, digest.hexdigest()[:16])
    print("sha256", digest.hexdigest())


main()
