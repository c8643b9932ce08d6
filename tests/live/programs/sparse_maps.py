# SPDX-License-Identifier: MIT
"""Private mappings outside of the heap, with pages that come, change, go and come again.

Pages lie alone, near others, and far from them; some belong to a file and become the program's
own; protection is taken away and given back; mappings appear, move and vanish; a whole page
table's worth is written at once; where the kernel has huge pages, one write makes one of them.
The expected content is computed, not remembered.

live: rounds=60
"""
import ctypes
import mmap
import os
import random
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

PAGE = mmap.PAGESIZE
PAGES = 4096
PROT_READ, PROT_WRITE = 1, 2
MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED, MREMAP_MAYMOVE, MADV_DONTNEED = 2, 32, 16, 1, 4
MADV_HUGEPAGE, HUGE = 14, 512  # pages, as many as a page table has entries

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Mapping:
    """A mapping, and the number that each of its pages has; 0: as nobody has written it."""

    def __init__(self, fd=-1):
        self.fill = fd >= 0
        self.fd = fd
        self.at = None
        self.renew()

    def renew(self):
        """A new mapping in the place of the old one, as when a library is loaded again."""
        flags = (0 if self.fill else MAP_ANONYMOUS) | (MAP_FIXED if self.at else 0)
        self.at = libc.mmap(self.at, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags,
                            self.fd, 0)
        self.number = {}

    def write(self, page, number):
        ctypes.c_uint64.from_address(self.at + page * PAGE + 8 * (page % 512)).value = number
        self.number[page] = number

    def forget(self, start, n):
        assert libc.madvise(self.at + start * PAGE, n * PAGE, MADV_DONTNEED) == 0
        for page in range(start, start + n):
            self.number.pop(page, None)

    def move(self):
        # A mapping of twice the size finds no room where this one is.
        self.at = libc.mremap(self.at, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE)
        libc.munmap(self.at + PAGES * PAGE, PAGES * PAGE)

    def protect(self, protection):
        assert libc.mprotect(self.at, PAGES * PAGE, protection) == 0

    def check(self, pages):
        for page in pages:
            value = ctypes.c_uint64.from_address(self.at + page * PAGE + 8 * (page % 512)).value
            expected = self.number.get(page, page + 1 if self.fill else 0)
            assert value == expected, (hex(self.at), page, value, expected)


class Huge(Mapping):
    """In each step one of its huge pages is made anew, by a write to one page."""

    def __init__(self):
        super().__init__()
        libc.madvise(self.at, PAGES * PAGE, MADV_HUGEPAGE)  # the kernel may have none

    def step(self, step):
        start = -(self.at // PAGE) % HUGE + HUGE * (step % (PAGES // HUGE - 1))
        self.forget(start, HUGE)
        self.write(start + step % HUGE, step + 1)


class Table:
    """All pages of a page table, written in each step."""

    def __init__(self):
        self.number = 0
        mapping = Mapping()
        self.at = mapping.at + -mapping.at % (HUGE * PAGE)

    def write(self, number):
        self.number = number % 256
        libc.memset(self.at, self.number, HUGE * PAGE)

    def check(self):
        assert ctypes.string_at(self.at, HUGE * PAGE) == bytes([self.number]) * (HUGE * PAGE)


def file_of_pages(path):
    with open(path, "wb") as file:
        for page in range(PAGES):
            file.write((page + 1).to_bytes(8, "little") * (PAGE // 8))


def change(mapping, chance, step):
    start = chance.randrange(PAGES - 200)
    kind = chance.randrange(5)
    if kind == 0:  # one page, far from all others
        mapping.write(start, step + 1)
    elif kind == 1:  # pages with gaps of all sizes around what is asked about at once
        for gap in (1, 2, 31, 32, 33, 34, 64):
            mapping.write(start, step + 1)
            start += gap
    elif kind == 2:  # a run
        for page in range(start, start + 40):
            mapping.write(page, step + 1)
    elif kind == 3:
        mapping.forget(start, chance.randrange(1, 200))
    else:  # gone and back again, within an epoch
        mapping.forget(start, 20)
        mapping.write(start + 7, step + 1)


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    chance = random.Random(7)
    file_of_pages("pages.bin")
    fd = os.open("pages.bin", os.O_RDONLY)
    mappings = [Mapping(), Mapping(fd), Mapping()]
    huge, table = Huge(), Table()
    for step in range(steps):
        for mapping in mappings:
            mapping.protect(PROT_READ | PROT_WRITE)
            change(mapping, chance, step)
            if chance.randrange(6) == 0:
                mapping.move()
            if chance.randrange(12) == 0:
                mapping.renew()
            mapping.protect(chance.choice((PROT_READ, PROT_READ | PROT_WRITE)))
        if step % 9 == 8:
            old = mappings.pop(2)
            libc.munmap(old.at, PAGES * PAGE)
            mappings.append(Mapping())
        huge.step(step)
        table.write(step + 1)
        pyheap.epoch()
        table.check()
        for mapping in [huge, *mappings]:
            mapping.check(chance.sample(range(PAGES), 100) + sorted(mapping.number))
    for mapping in mappings:
        mapping.check(range(PAGES))
    print(sum(len(mapping.number) for mapping in mappings), "pages of", 3 * PAGES)


main()
