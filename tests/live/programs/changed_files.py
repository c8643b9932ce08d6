# SPDX-License-Identifier: MIT
"""A tree of files that is changed in every way between epochs, and looked through after each: made, appended
to, rewritten, overwritten, cut, renamed, replaced, linked and removed, few of them open at an epoch.

live: rounds=150
"""
import os
import random
import shutil
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap

RANDOM = random.Random(7)


class Tree:
    """What the files should be: the content of each, by path; None for a directory."""

    def __init__(self):
        self.wanted = {}
        self.held = {}
        self.directories = {}  # open ones: descriptors

    def paths(self, directory=False):
        return sorted(p for p, c in self.wanted.items() if (c is None) == directory)

    def pick(self):
        files = self.paths()
        return RANDOM.choice(files) if files else None

    def fresh(self):
        where = RANDOM.choice(["tree", *self.paths(directory=True)])
        return f"{where}/{RANDOM.randrange(10**6)}"

    def make(self):
        path, content = self.fresh(), RANDOM.randbytes(RANDOM.randrange(3000))
        with open(path, RANDOM.choice(["xb", "ab", "wb"])) as file:
            file.write(content)
        self.wanted[path] = content

    def append(self):
        if path := self.pick():
            with open(path, "ab") as file:
                file.write(b"line\n")
            self.wanted[path] += b"line\n"

    def rewrite(self):
        """From what is there."""
        if path := self.pick():
            with open(path, "rb") as file:
                content = file.read()[::-1] + b"!"
            with open(path, "wb") as file:
                file.write(content)
            self.wanted[path] = self.wanted[path][::-1] + b"!"

    def overwrite(self):
        if path := self.pick():
            content = bytearray(self.wanted[path])
            at = RANDOM.randrange(len(content) + 1)
            content[at:at + 5] = b"12345"
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(b"12345")
            self.wanted[path] = bytes(content)

    def hold(self):
        """Open over epochs, and overwritten in the middle now and then."""
        if path := self.pick():
            if path not in self.held and len(self.held) < 5:
                self.held[path] = open(path, "r+b", buffering=0)
        for path, file in self.held.items():
            content = bytearray(self.wanted[path])
            at = RANDOM.randrange(len(content) + 1)
            content[at:at + 3] = b"abc"
            os.pwrite(file.fileno(), b"abc", at)
            self.wanted[path] = bytes(content)

    def release(self):
        for file in self.held.values():
            file.close()
        self.held.clear()

    def cut(self):
        if path := self.pick():
            length = RANDOM.randrange(len(self.wanted[path]) + 100)
            os.truncate(path, length)
            self.wanted[path] = self.wanted[path][:length].ljust(length, b"\0")

    def rename(self):
        if path := self.pick():
            to = self.fresh()
            os.rename(path, to)
            self.move(path, to)

    def replace(self):
        path, to = self.pick(), self.pick()
        if path and path != to and to not in self.held:
            os.replace(path, to)
            self.move(path, to)

    def move(self, path, to):
        self.wanted[to] = self.wanted.pop(path)
        if path in self.held:
            self.held[to] = self.held.pop(path)

    def remove(self):
        path = self.pick()
        if path and path not in self.held:
            os.remove(path)
            del self.wanted[path]

    def directory(self):
        path = self.fresh()
        os.mkdir(path)
        self.wanted[path] = None

    def hold_directory(self):
        if directories := self.paths(directory=True):
            path = RANDOM.choice(directories)
            if path not in self.directories:
                self.directories[path] = os.open(path, os.O_RDONLY)

    def drop(self):
        if directories := self.paths(directory=True):
            path = RANDOM.choice(directories)
            if not any(held.startswith(path) for held in self.held):
                shutil.rmtree(path)
                for gone in [p for p in self.directories if (p + "/").startswith(path + "/")]:
                    os.close(self.directories.pop(gone))
                self.wanted = {p: c for p, c in self.wanted.items() if not (p + "/").startswith(path + "/")}

    def look(self):
        found = {}
        for where, directories, files in os.walk("tree"):
            found.update((f"{where}/{name}", None) for name in directories)
            for name in files:
                with open(f"{where}/{name}", "rb") as file:
                    found[f"{where}/{name}"] = file.read()
        assert found == self.wanted, {p for p in found.keys() | self.wanted.keys()
                                      if found.get(p, 0) != self.wanted.get(p, 0)}
        for path, directory in self.directories.items():
            names = {p[len(path) + 1:].split("/")[0] for p in self.wanted if p.startswith(path + "/")}
            assert set(os.listdir(directory)) == names, path


def main():
    os.mkdir("tree")
    tree = Tree()
    steps = [tree.make, tree.make, tree.make, tree.append, tree.append, tree.rewrite, tree.overwrite, tree.hold,
             tree.release, tree.hold_directory, tree.cut, tree.rename, tree.replace, tree.remove, tree.directory,
             tree.drop]
    for r in range(int(sys.argv[1])):
        for _ in range(RANDOM.randrange(1, 30)):
            RANDOM.choice(steps)()
            if RANDOM.random() < 0.05:
                pyheap.epoch()
        tree.look()
        pyheap.epoch()
        tree.look()
        print(r, len(tree.wanted))


main()
