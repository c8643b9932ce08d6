# SPDX-License-Identifier: MIT
"""traveller.py - a program that ends each leg of its way by SIGKILL and goes on elsewhere

    traveller.py LEGS [numpy]

LEGS lives of STEPS epochs each. It is in the middle of a recursion of generators when it is
killed, with a thread in machine code that keeps a value in a vector register, the upper half of
it too where there is AVX; with `numpy` another one is in a matrix product. In each life the
clocks are looked at by all ways that lead through the vdso, and modules are imported that the
program did not have before: what those choose by the processor is the other machine's. The
output depends on none of that. In plain Python nobody kills it.
"""
import ctypes
import faulthandler
import hashlib
import importlib
import mmap
import os
import pathlib
import signal
import sys
import threading
import time

try:
    import pyheap
except ImportError:
    pyheap = None

STEPS = 5  # epochs in a life
NEW_MODULES = [["decimal", "json"], ["ssl", "zlib", "sqlite3"], ["lzma", "bz2", "csv"]]
libc = ctypes.CDLL(None, use_errno=True)


class Timespec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]


def by_system_call():
    now = Timespec()
    assert libc.syscall(228, time.CLOCK_MONOTONIC, ctypes.byref(now)) == 0  # clock_gettime
    return now.s * 10**9 + now.ns


class Clocks:
    """Every reading lies between the one before and the one after it, whoever gives it."""

    def __init__(self):
        self.last = time.monotonic_ns()
        libc.time.restype = ctypes.c_long
        self.wall, self.at = time.time_ns(), (self.last, self.last)

    def look(self):
        before = time.perf_counter_ns()
        middle = by_system_call()
        time.sleep(0.002)
        after = time.monotonic_ns()
        assert self.last <= before <= middle <= after - 2_000_000, (self.last, before, middle, after)
        # The calendar by clock_gettime, gettimeofday and time: the latter two are called at
        # addresses that were resolved when the program started.
        value = (ctypes.c_long * 2)()
        first = time.time_ns()
        assert libc.gettimeofday(value, None) == 0
        second = time.time_ns()
        assert first // 1000 <= value[0] * 10**6 + value[1] <= second // 1000
        assert first // 10**9 - 1 <= libc.time(None) <= time.time_ns() // 10**9
        assert 0 <= libc.sched_getcpu() < os.sysconf("SC_NPROCESSORS_CONF")
        assert time.clock_getres(time.CLOCK_MONOTONIC) > 0
        self.last = after

    def rate(self):
        """Within a life monotonic and calendar time pass equally fast."""
        a = time.monotonic_ns()
        wall = time.time_ns()
        b = time.monotonic_ns()
        time.sleep(0.05)
        c = time.monotonic_ns()
        passed = time.time_ns() - wall
        d = time.monotonic_ns()
        assert 0.99 * (c - b) - 10**6 <= passed <= 1.01 * (d - a) + 10**6, (a, b, passed, c, d)


KEEP = {"xmm": ("0f1006 8339 00 74fb 0f1102 c3", 16),       # movups (%rsi); cmpl (%rcx); je
        "ymm": ("c5fc1006 8339 00 74fb c5fc1102 c3", 32)}   # vmovups, the same


class Keeper(threading.Thread):
    """Holds a value in a register from one epoch over the next."""

    def __init__(self, value):
        super().__init__(daemon=True)  # if the program fails, it shall end
        flags = pathlib.Path("/proc/cpuinfo").read_text().split()
        code, self.size = KEEP["ymm" if "avx" in flags else "xmm"]
        self.code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.code.write(bytes.fromhex(code))
        pointer = ctypes.c_void_p
        self.keep = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, pointer)(
            ctypes.addressof(ctypes.c_char.from_buffer(self.code)))
        self.value = hashlib.sha256(str(value).encode()).digest()[:self.size]
        self.source = ctypes.create_string_buffer(self.value, self.size)
        self.target, self.flag = ctypes.create_string_buffer(self.size), ctypes.c_int(0)
        self.start()
        time.sleep(0.01)

    def run(self):
        self.keep(None, self.source, self.target, ctypes.byref(self.flag))

    def end(self):
        self.flag.value = 1
        self.join()
        assert self.target.raw == self.value, (self.target.raw, self.value)


class Product(threading.Thread):
    """A matrix product under way all the time, of whole numbers, so that it is exact."""

    def __init__(self):
        super().__init__(daemon=True)
        self.done = 0
        self.start()

    def run(self):
        import numpy as np
        n = 200
        a = (np.arange(n * n) % 7).astype(np.float64).reshape(n, n)
        b = (np.arange(n * n) % 5).astype(np.float64).reshape(n, n)
        wanted = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float64)
        while True:
            assert np.array_equal(a @ b, wanted)
            self.done += 1


def heat():
    """One row's temperature after another, by NumPy where that was imported before."""
    np = sys.modules.get("numpy")
    size = 64
    grid = [[0.0] * size for _ in range(size)]
    grid[0] = [40.0] * size
    grid = np.array(grid) if np else grid
    while True:
        if np:
            work = 0.2 * (grid[1:-1, 1:-1] + grid[:-2, 1:-1] + grid[1:-1, 2:] + grid[1:-1, :-2]
                          + grid[2:, 1:-1])
            grid[1:-1, 1:-1] = work
            text = grid.tobytes()
        else:
            grid = [grid[0]] + [
                [row[0]] + [0.2 * (row[i] + above[i] + row[i + 1] + row[i - 1] + below[i])
                            for i in range(1, size - 1)] + [row[-1]]
                for above, row, below in zip(grid, grid[1:], grid[2:])] + [grid[-1]]
            text = repr(grid).encode()
        yield hashlib.sha256(text).hexdigest()[:16]


def nested(depth):
    if depth:
        yield from nested(depth - 1)
    else:
        yield from heat()


def life():
    return pyheap.status()["recoveries"] if pyheap and pyheap.active else None


def step(number, legs, clocks, values):
    """The epoch is taken in here, deep below main."""
    keeper = Keeper(number)
    clocks.look()
    value = next(values)
    with open("log.txt", "a") as log:
        log.write(f"{number} {value}\n")
    if pyheap:
        pyheap.epoch()
    clocks.look()
    if number % STEPS == STEPS - 1 and life() == number // STEPS < legs - 1:
        pyheap.sync()
        print("this line belongs to no epoch", flush=True)
        pathlib.Path("log.txt").write_text("nor does this")
        os.kill(os.getpid(), signal.SIGKILL)
    keeper.end()
    return value


def main():
    faulthandler.register(signal.SIGUSR2)
    legs, numpy = int(sys.argv[1]), "numpy" in sys.argv[2:]
    if numpy:
        import numpy
        product = Product()
    clocks, values = Clocks(), nested(20)
    for number in range(legs * STEPS):
        print(number, step(number, legs, clocks, values), flush=True)
        if number % STEPS == 0:  # in a new life, but for the first step of all
            clocks.rate()
            for name in NEW_MODULES[number // STEPS % len(NEW_MODULES)]:
                importlib.import_module(name)
            if number // STEPS == 1:
                import numpy as np
                print("sum", int(np.arange(100000, dtype=np.int64).sum()),
                      float(np.sort((np.arange(1000) * 7919 % 1000).astype(np.float64))[500]))
    if numpy:
        before = product.done
        while product.done < before + 2:
            time.sleep(0.01)
    print("ended")


main()
