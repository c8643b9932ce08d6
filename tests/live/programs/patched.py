# SPDX-License-Identifier: MIT
"""Private mappings of a file that may not be written to, but are: made writable for a moment, as
hot-patching does, in the middle of what is otherwise never looked at; and a library's code.

live: rounds=40
"""
import ctypes
import mmap
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

PAGE = mmap.PAGESIZE
PAGES = 1500
READ, WRITE, EXEC = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


def protect(at, size, prot):
    assert libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(size), prot) == 0


class Data:
    """Pages of a file, every few of them patched."""

    def __init__(self):
        with open("constants", "w+b") as file:
            for i in range(PAGES):
                file.write(i.to_bytes(2, "little") * (PAGE // 2))
            file.flush()
            self.memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect(self.at, len(self.memory), READ)
        self.patched = {}

    def patch(self, r):
        page = (r * 379 + 11) % PAGES
        protect(self.at, len(self.memory), READ | WRITE)
        self.memory[page * PAGE + 100] = self.patched[page] = r % 256
        protect(self.at, len(self.memory), READ)

    def check(self):
        for page in range(PAGES):
            expected = bytearray(page.to_bytes(2, "little") * (PAGE // 2))
            if page in self.patched:
                expected[100] = self.patched[page]
            assert self.memory[page * PAGE:(page + 1) * PAGE] == expected, page


class Code:
    """A page of the C library's code that nobody executes: what follows its last function."""

    def __init__(self):
        found = []
        with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
            for line in maps:
                words = line.split()
                if "x" in words[1] and len(words) > 5 and "/libc." in words[5]:
                    found.append([int(word, 16) for word in words[0].split("-")])
        self.page = found[0][1] - PAGE
        self.last = ctypes.c_ubyte.from_address(self.page + PAGE - 1)
        assert self.last.value == 0

    def patch(self, r):
        protect(self.page, PAGE, READ | WRITE)
        self.last.value = (r + 1) % 256
        protect(self.page, PAGE, READ | EXEC)

    def check(self, r):
        assert self.last.value == (r + 1) % 256, self.last.value


def main():
    rounds = int(sys.argv[1])
    data, code = Data(), Code()
    for r in range(rounds):
        pyheap.epoch()
        if r % 3 == 2:  # in between nothing is patched
            data.patch(r)
            code.patch(r)
        sum(i * i for i in range(30000))
        data.check()
        if r >= 2:
            code.check(r // 3 * 3 + 2 if r % 3 == 2 else r // 3 * 3 - 1)
        if r % 10 == 0:
            print(r, len(data.patched), flush=True)
    print("end", sorted(data.patched.items()), code.last.value)


main()
