# SPDX-License-Identifier: MIT
"""PYTHONMALLOC=debug: the debug hooks lie over pyheap's allocator, before and after recovery.

live: rounds=30 environment=PYTHONMALLOC=debug
"""
import ctypes
import gc
import sys

import pyheap

api = ctypes.pythonapi
api.PyMem_Malloc.restype = ctypes.c_void_p
api.PyMem_Malloc.argtypes = [ctypes.c_size_t]
api.PyMem_Free.argtypes = [ctypes.c_void_p]


def fresh():
    """What the debug hooks write into a new block."""
    block = api.PyMem_Malloc(64)
    content = ctypes.string_at(block, 64)
    api.PyMem_Free(block)
    return content


def main():
    rounds = int(sys.argv[1])
    words = {}
    for r in range(rounds):
        for n in range(2000):
            words[f"{r % 5}/{n}"] = [n] * (n % 30)
        pyheap.epoch()
        assert fresh() == b"\xcd" * 64, "the debug hooks are gone"
        gc.collect()
        if r % 10 == 0:
            print(r, len(words), sum(map(len, words.values())))


main()
