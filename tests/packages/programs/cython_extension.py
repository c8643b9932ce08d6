# SPDX-License-Identifier: MIT
"""Cython: an extension built here, with typed loops, a class with C memory, a generator, and a
callback from code without the GIL.

live: rounds=40 needs=Cython,setuptools
"""
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

import pyheap

SOURCE = """
# cython: language_level=3
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

cdef int compare(const void *a, const void *b) noexcept nogil:
    cdef long x = (<long *>a)[0], y = (<long *>b)[0]
    return (x > y) - (x < y)

cdef class Numbers:
    cdef long *at
    cdef readonly long n
    def __cinit__(self, long n):
        self.at = <long *>malloc(n * sizeof(long))
        self.n = n
        for i in range(n):
            self.at[i] = (i * 7919) % n
    def __dealloc__(self):
        free(self.at)
    def sort(self, during):
        with nogil:
            qsort(self.at, self.n, sizeof(long), compare)
            with gil:
                during()
    def __getitem__(self, long i):
        return self.at[i]

def squares(long n):
    cdef long i
    for i in range(n):
        yield i * i
"""


def build():
    """The extension, built outside the program's directory: that is compared in the end."""
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "numbers_c.pyx").write_text(SOURCE)
        subprocess.run([sys.executable, "-m", "Cython.Build.Cythonize", "-i", "-q",
                        "numbers_c.pyx"], cwd=directory, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        built, = pathlib.Path(directory).glob("numbers_c*.so")
        spec = importlib.util.spec_from_file_location("numbers_c", built)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module  # its file is gone: the pool must have all of it


def main():
    rounds = int(sys.argv[1])
    module = build()
    squares = module.squares(rounds)
    for r in range(rounds):
        numbers = module.Numbers(50_000 + r)
        numbers.sort(lambda: pyheap.epoch("inside C code"))
        assert [numbers[i] for i in range(5)] == sorted(numbers[i] for i in range(5))
        found = next(squares)
        assert found == r * r
        if r % 10 == 0:
            print(r, numbers[numbers.n - 1], found)
    assert not os.path.exists(module.__file__)


main()
