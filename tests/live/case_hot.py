# SPDX-License-Identifier: MIT
"""case_hot - memory that changes in every epoch, and when it rests

What is counted is what the kernel and pyheap count: faults, huge pages, pages staged.
"""
import signal

from case import Case
from commands import PATIENCE

MIB = 64
PAGES = MIB * 256

# Rewrites a large block between epochs, then lets it rest; reports what each step took.
REWRITING = f"""
    import os, re, resource, sys
    import pyheap
    SIZE = {MIB} << 20
    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    def huge():
        with open("/proc/self/smaps_rollup") as file:
            return int(re.search(r"AnonHugePages:\\s+(\\d+)", file.read())[1])
    def rewrite(data, value):
        view = memoryview(data)
        piece = bytes([value]) * (1 << 20)
        for at in range(0, SIZE, len(piece)):
            view[at:at + len(piece)] = piece
        view.release()
    data = bytearray(SIZE)
    def steps(first, n):
        for value in range(first, first + n):
            before = faults()
            rewrite(data, value)
            print("rewrite", faults() - before, flush=True)
            pyheap.epoch(wait=True)
        for i in range(4):
            pyheap.epoch(wait=True)
            print("rest", pyheap.status()["pages_staged"], flush=True)
    rewrite(data, 1)
    before = huge()
    pyheap.epoch(wait=True)
    steps(2, 5)
    print("huge", before, huge(), flush=True)
    rounds = int(sys.argv[1])
    for i in range(rounds):
        steps(10 + 10 * i, 6)
        print("whole", before, huge(), flush=True)
    print("sum", sum(data[::4096]), flush=True)
"""


# Asks for memory outside of the heap, and uses little of it.
UNTOUCHED = """
    import mmap, re
    import pyheap
    def tables():
        with open("/proc/self/status") as file:
            return int(re.search(r"VmPTE:\\s+(\\d+)", file.read())[1])
    memory = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    before = tables()
    for i in range(8):
        for page in range(2000):
            memory[page << 12] = i
        memory[(100 + 50 * i) << 20] = i
        pyheap.epoch(wait=True)
    print("tables", tables() - before)
"""


class Hot(Case):
    """pyhook/hot.c"""

    def said(self, what):
        return [[int(n) for n in line.split()[1:]] for line in self.out.read_text().splitlines()
                if line.startswith(what + " ")]

    def setUp(self):
        super().setUp()
        done = self.run_program("import pyheap; pyheap.epoch(); print(pyheap.status()['tracker'])")
        if done.stdout.strip() != "userfaultfd":
            self.skipTest("changes are not tracked here")

    def test_what_is_rewritten_is_neither_protected_nor_split(self):
        done = self.run_program(REWRITING, 0)
        self.assert_ended(done)
        self.out.write_text(done.stdout)
        for (faults,) in self.said("rewrite"):
            self.assertLess(faults, PAGES // 20)
        ((before, after),) = self.said("huge")
        self.assertGreaterEqual(after, before * 0.9)

    def test_what_rests_is_soon_not_copied_any_more(self):
        done = self.run_program(REWRITING, 3)
        self.assert_ended(done)
        self.out.write_text(done.stdout)
        rests = [n for (n,) in self.said("rest")]
        for first in range(0, len(rests), 4):
            self.assertGreaterEqual(rests[first], PAGES)
        self.assertLess(rests[3], PAGES // 20, "at the third epoch without a change")

    def test_memory_that_turns_hot_again_is_left_alone_after_two_epochs(self):
        done = self.run_program(REWRITING, 1)
        self.assert_ended(done)
        self.out.write_text(done.stdout)
        faults = [n for (n,) in self.said("rewrite")][5:]
        self.assertGreater(faults[0], PAGES // 2, "it was protected while it rested")
        for n in faults[2:]:
            self.assertLess(n, PAGES // 20)
        ((before, after),) = self.said("whole")
        self.assertGreaterEqual(after, before * 0.9, "the writes have split its huge pages")

    def test_memory_that_nobody_has_touched_gets_no_page_tables(self):
        """pyhook/holes.c"""
        done = self.run_program(UNTOUCHED)
        self.assert_ended(done)
        self.out.write_text(done.stdout)
        ((kibibytes,),) = self.said("tables")
        self.assertLess(kibibytes, 300, "all of it has 2048")

    def test_it_comes_back_as_it_was(self):
        keeper, target = self.start(self.argv(REWRITING, 2))
        for epoch in (4, 9, 14, 20):
            self.wait_epoch(epoch)
            target.signal(signal.SIGKILL)
            keeper.wait(PATIENCE)
            keeper, target = self.start([self.commands.recover, self.pool])
        self.assertEqual(keeper.wait(PATIENCE), 0, self.err.read_text())
        ((total,),) = self.said("sum")
        self.assertEqual(total, 25 * PAGES)
