# SPDX-License-Identifier: MIT
"""Memory outside of the heap."""
import collections
import concurrent.futures.thread  # while another thread forks, its hooks would run by half
import ctypes
import hashlib
import mmap
import os
import random

try:
    import numpy
except ImportError:
    numpy = None

from .base import PATIENCE, libc, piece


@piece
def mappings(me):
    """Anonymous mappings, private and shared: written, advised, resized, unmapped."""
    maps = []
    for r in me.rounds:
        size = me.rng.randint(1, 300) * mmap.PAGESIZE
        flags = me.rng.choice([mmap.MAP_PRIVATE, mmap.MAP_SHARED]) | mmap.MAP_ANONYMOUS
        area = mmap.mmap(-1, size, flags=flags)
        value = bytes([r % 255 + 1])
        at = me.rng.randrange(size - 100)
        area[at:at + 100] = value * 100
        maps.append((area, at, value))
        yield
        for area, at, value in maps:
            assert area[at:at + 100] == value * 100
        if len(maps) > 6:
            area, at, value = maps.pop(me.rng.randrange(6))
            if me.rng.random() < 0.5 and flags & mmap.MAP_PRIVATE:
                area.madvise(mmap.MADV_DONTNEED)
            area.close()
        if me.rng.random() < 0.2:
            private = next((m for m in maps), None)
            if private:
                private[0].resize(len(private[0]) * 2)
        me.say(r, len(maps), sum(len(area) for area, *_ in maps))


@piece
def mapped_file(me):
    """A file that is mapped shared: what is written once is there."""
    with open(f"{me.name}.map", "w+b") as file:
        file.truncate(len(me.rounds) * 1000 + 1)
        with mmap.mmap(file.fileno(), 0) as shared, \
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
            for r in me.rounds:
                data = hashlib.sha256(b"%d" % r).digest() * 30
                shared[r * 1000:r * 1000 + 960] = data
                yield
                assert seen[r * 1000:r * 1000 + 960] == data
                if r % 5 == 0:
                    shared.flush()
                me.say(r, data[:4].hex())


@piece
def libc_memory(me):
    """Blocks of libc's on both sides of what goes to the heap, from threads of their own."""
    for name in ("malloc", "realloc", "calloc", "memalign"):
        function = getattr(libc, name)
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_size_t] * 2
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free.restype = None

    def change(blocks, dice):
        for _ in range(10):
            size = int(10 ** dice.uniform(1, 6.3))
            value = dice.randrange(1, 256)
            if len(blocks) > 8:
                at, old, seen = blocks.pop(dice.randrange(len(blocks)))
                assert ctypes.string_at(at, old) == bytes([seen]) * old
                if dice.random() < 0.5:
                    libc.free(at)
                    continue
                new = libc.realloc(at, size)
                assert ctypes.string_at(new, min(old, size)) == bytes([seen]) * min(old, size)
            elif dice.random() < 0.2:
                new = libc.calloc(1, size)
                assert not any(ctypes.string_at(new, size))
            elif dice.random() < 0.3:
                new = libc.memalign(4096, size)
                assert new % 4096 == 0
            else:
                new = libc.malloc(size)
            ctypes.memset(new, value, size)
            blocks.append((new, size, value))
        if dice.random() < 0.1:
            libc.malloc_trim(0)
    mine = [([], random.Random(me.rng.random())) for _ in range(me.rng.randint(1, 3))]
    for r in me.rounds:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(change, *one) for one in mine]
            yield
            for future in futures:
                future.result(PATIENCE)
        me.say(r, *(sum(size for _, size, _ in blocks) for blocks, _ in mine))


@piece
def protection(me):
    """Mappings made by hand: guarded, moved, holed, over files, with pages that are dropped."""
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mprotect.argtypes = libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t,
                                                      ctypes.c_int]
    page, maps = mmap.PAGESIZE, []
    text = open(os.__file__, "rb")
    for r in me.rounds:
        pages = me.rng.randint(8, 700)
        of_file = me.rng.random() < 0.3
        at = libc.mmap(None, pages * page, 3, 2 if of_file else 0x22,
                       text.fileno() if of_file else -1, 0)
        pages = 8 if of_file else pages
        value = r % 255 + 1
        ctypes.memset(at + page, value, 2 * page)
        libc.mprotect(at + page, page, me.rng.choice([0, 1, 3, 5]))
        libc.munmap(at + 4 * page, page)
        ctypes.memset(at + 5 * page, value, page)
        maps.append([at, pages, value, of_file])
        yield
        for at, pages, value, of_file in maps:
            assert ctypes.string_at(at + 2 * page, page) == bytes([value]) * page
            assert ctypes.string_at(at + 5 * page, page) == bytes([value]) * page
            libc.mprotect(at + page, page, 1)
            assert ctypes.string_at(at + page, page) == bytes([value]) * page
            if of_file:
                assert ctypes.string_at(at, 100) == os.pread(text.fileno(), 100, 0)
            else:
                assert not any(ctypes.string_at(at, page))
        if len(maps) > 5:
            at, pages, value, of_file = maps.pop(me.rng.randrange(len(maps)))
            libc.madvise(at + 5 * page, page, mmap.MADV_DONTNEED)
            assert ctypes.string_at(at + 5 * page, 1) == (
                os.pread(text.fileno(), 1, 5 * page) if of_file else b"\0")
            moved = libc.mremap(at + 5 * page, page, 64 * page, 1)
            if not of_file:
                assert ctypes.string_at(moved + 40 * page, 1) == b"\0"
            libc.munmap(moved, 64 * page)
            libc.munmap(at, 4 * page)
            libc.munmap(at + 6 * page, (pages - 6) * page)
        me.say(r, len(maps))


if numpy:
    @piece
    def arrays(me):
        """NumPy arrays, computed in place, resized and freed; a memmap."""
        disk = numpy.memmap(f"{me.name}.npy", dtype=float, mode="w+", shape=(len(me.rounds), 500))
        kept = collections.deque(maxlen=5)
        value = numpy.arange(250000.0).reshape(500, 500)
        dice = numpy.random.default_rng(me.rng.randrange(1000))
        for r in me.rounds:
            value[1:-1, 1:-1] += 0.1 * (value[2:, 1:-1] + value[:-2, 1:-1]
                                        - 2 * value[1:-1, 1:-1])
            kept.append(dice.random(me.rng.randint(1, 300000)))
            sums = [array.sum() for array in kept]
            disk[r] = value[r % 500]
            yield
            assert sums == [array.sum() for array in kept]
            assert (disk[r] == value[r % 500]).all()
            me.say(r, repr(value.sum()), repr(kept[-1][0]), repr(sums[-1]))
