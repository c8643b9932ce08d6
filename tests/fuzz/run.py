#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py - pools and what lies beside them, damaged at random: refused or recovered, nothing else

    tests/fuzz/run.py [--bin DIR] [--seed S] [--seconds T | --count N] [--what pool|undo|fixed]

A killed run is damaged in one way or a few, and then listed, verified, packed and recovered:

    pool    bits, words and pages of the pool are changed, or it is cut short
    fixed   the same in what its checksums cover, and the checksums are made right again
    undo    the notes and kept bytes in POOL.undo: names, texts, kinds of files, lengths

What must hold: no command is killed by a signal, hangs, or ends with a status that is neither
its own nor the program's; a refusal is short and leaves the program's files as they are; if the
program goes on, it finds its memory as it was (for pool; what has right checksums is believed).
A failure keeps its directory and prints how to repeat it. Best with binaries that the sanitizers
watch: cmake --preset asan.
"""
import argparse
import ctypes
import os
import pathlib
import random
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))

import processes  # noqa: E402
from case import data_of, statuses  # noqa: E402
from commands import Commands, PATIENCE  # noqa: E402

PAGE = 4096
PROGRAM = """
import hashlib, os, sys, time
import pyheap
kept = [os.urandom(5000) for _ in range(200)]
sums = [hashlib.sha256(one).digest() for one in kept]
log = open("log", "a")
held = open("held", "w+b", 0)
held.write(bytes(3_000_000))
for name in ("named", "gone", "moved", "cut"):
    with open(name, "w") as file:
        file.write(name * 1000)
os.mkdir("directory")
for step in range(4):
    log.write(f"{step}\\n")
    pyheap.epoch(f"step {step}", wait=True)
if not pyheap.status()["recoveries"]:
    with open("named", "a") as file:
        file.write("more")
    os.remove("gone")
    os.rename("moved", "elsewhere")
    os.truncate("cut", 10)
    os.rmdir("directory")
    os.mkdir("made")
    os.pwrite(held.fileno(), b"new" * 1000, 100)
    held.truncate(2_000_000)
    print("here", flush=True)
    time.sleep(600)
assert [hashlib.sha256(one).digest() for one in kept] == sums
print("right")
"""


class Sum(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


try:
    xxh = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
    xxh.restype, xxh.argtypes = Sum, [ctypes.c_char_p, ctypes.c_size_t]
except OSError:
    xxh = None

# magic: (size of the structure, where its checksum is)
CHECKED = {0x4b4c425045485950: (624, 608), 0x544f4f5250454850: (512, 496),
           0x434f504550454850: (4096, 4080), 0x454c494650454850: (4096, 4080)}


class Wrong(Exception):
    pass


def allocated(pool):
    """Pages of the pool that are not holes, and those of them that begin with one of our magics."""
    pages, checked = [], []
    with open(pool, "rb") as file:
        for at, piece in data_of(file):
            for offset in range(0, len(piece), PAGE):
                pages.append(at + offset)
                word, = struct.unpack_from("Q", piece.ljust(8, b"\0"), offset) \
                    if offset + 8 <= len(piece) else (0,)
                if word in CHECKED:
                    checked.append((at + offset, *CHECKED[word]))
    return pages, checked


def damage(rng, data):
    """Bytes that are not as they were."""
    data = bytearray(data)
    at = rng.randrange(len(data))
    word = at // 8 * 8
    how = rng.randrange(6)
    if how == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        data[at] = rng.randrange(256)
    elif how == 2:
        value = rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - PAGE, PAGE,
                            1 << rng.randrange(64), rng.randrange(2**64)])
        data[word:word + 8] = struct.pack("Q", value)[:len(data) - word]
    elif how == 3:
        old = int.from_bytes(data[word:word + 8], "little")
        value = old + rng.choice([-1, 1, -PAGE, PAGE, 64 << 20, rng.randrange(-1000, 1000)])
        data[word:word + 8] = struct.pack("Q", value % 2**64)[:len(data) - word]
    elif how == 4:
        n = rng.randrange(1, 200)
        data[at:at + n] = bytes(len(data[at:at + n]))
    else:
        other = rng.randrange(len(data))
        n = min(rng.randrange(1, 64), len(data) - max(at, other))
        data[at:at + n] = data[other:other + n]
    return bytes(data)


class Fuzz:
    def __init__(self, args):
        self.commands = Commands(args.bin)
        self.bin, self.what = args.bin, args.what
        self.own = set(statuses(ROOT / "allocator" / "error.h").values()) | {0}
        self.seen = {}

    def killed_run(self, directory):
        """A run that is killed after having changed its files."""
        script = directory / "program.py"
        script.write_text(PROGRAM)
        work = directory / "work"
        work.mkdir(parents=True)
        out = directory / "out"
        with open(out, "w") as file:
            keeper = subprocess.Popen([self.commands.run, "--pool", directory / "test.pm",
                                       "--keep", "4", "--python", "/usr/bin/python3", script],
                                      cwd=work, stdin=subprocess.DEVNULL, stdout=file,
                                      stderr=subprocess.DEVNULL)
        target = processes.program_of(keeper, PATIENCE)
        limit = time.monotonic() + PATIENCE
        while "here" not in out.read_text():
            assert time.monotonic() < limit and keeper.poll() is None
            time.sleep(0.01)
        target.signal(signal.SIGKILL)
        target.close()
        keeper.wait()

    def command(self, directory, *arguments):
        """One command. @return (status, stdout); its text is appended to the directory's err."""
        with open(directory / "err", "ab") as err:
            err.write(f"--- {arguments}\n".encode())
            err.flush()
            begins = err.tell()
            process = subprocess.Popen([self.commands.recover, *arguments],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=err, cwd=directory)
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            doing = [processes.describe(p) for p in
                     (process.pid, *processes.children_of(process.pid))]
            process.kill()
            process.wait()
            raise Wrong(f"{arguments} hangs: " + "\n".join(doing)) from None
        said = (directory / "err").read_bytes()[begins:].decode(errors="replace")
        if "Sanitizer" in said or "runtime error" in said:
            raise Wrong(f"{arguments}: a sanitizer complains")
        if len(said) > 20000:
            raise Wrong(f"{arguments}: {len(said)} bytes of messages")
        return process.returncode, out, said

    def state(self, work):
        return {str(path.relative_to(work)): (path.lstat().st_mode, path.lstat().st_size,
                                              path.read_bytes() if path.is_file() else None)
                for path in sorted(work.rglob("*"))}

    def check(self, directory):
        pool = directory / "test.pm"
        for arguments in (["--list"], ["--verify"], ["--pack", directory / "packed.pm"]):
            status, _, _ = self.command(directory, *arguments, pool)
            if status not in self.own:
                raise Wrong(f"{arguments} ended with {status}")
        before = self.state(directory / "work")
        status, out, said = self.command(directory, *self.more, pool)
        self.seen[status] = self.seen.get(status, 0) + 1
        if status == 0 and b"right" in out:
            return
        if status in self.own and status and not out:
            if "nothing is lost" not in said and self.state(directory / "work") != before:
                raise Wrong(f"refused with {status}, and files are not as they were")
            return
        if self.what == "fixed" and status in (1, -signal.SIGSEGV, -signal.SIGKILL,
                                               -signal.SIGBUS, 139, 137, 135) \
                and "pyheap-recover" in said:
            return  # the program itself: nothing can tell it that its memory is not its own
        raise Wrong(f"recovery ended with {status}, {out}")

    # ---- damage --------------------------------------------------------------------------

    def damage_pool(self, rng, directory):
        pool = directory / "test.pm"
        pages, checked = allocated(pool)
        with open(pool, "r+b", 0) as file:
            for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
                at, size = rng.choice(pages), PAGE
                if checked and rng.random() < 0.4:
                    at, size, _ = rng.choice(checked)
                elif rng.random() < 0.4:
                    at = pages[min(int(rng.expovariate(1 / 20)), len(pages) - 1)]
                file.seek(at)
                data = file.read(size)
                file.seek(at)
                how = rng.random()
                if how < 0.1:
                    file.write(bytes(size))
                elif how < 0.2:
                    file.seek(rng.choice(pages))
                    data = file.read(PAGE)
                    file.seek(at)
                    file.write(data)
                else:
                    file.write(damage(rng, data))
            if rng.random() < 0.1:
                os.truncate(pool, rng.choice([0, 1, 4095, PAGE, rng.choice(pages),
                                              os.path.getsize(pool) - 1,
                                              os.path.getsize(pool) + rng.randrange(1 << 30)]))

    def damage_fixed(self, rng, directory):
        """What checksums cover, with right checksums: bounds alone stand before what follows."""
        pool = directory / "test.pm"
        _, checked = allocated(pool)
        with open(pool, "r+b", 0) as file:
            for _ in range(rng.choice([1, 1, 2])):
                at, size, sum_at = rng.choice(checked)
                file.seek(at)
                data = file.read(size)
                if rng.random() < 0.5 and size == PAGE and self.damage_record(rng, file, data):
                    data = self.damaged_record
                else:
                    data = damage(rng, data[:sum_at]) + data[sum_at:]
                found = xxh(data[:sum_at], sum_at)
                file.seek(at)
                file.write(data[:sum_at] + struct.pack("QQ", found.low, found.high))

    def damage_record(self, rng, file, header):
        """The index or the record of an epoch, and its checksum in the header."""
        if struct.unpack_from("Q", header)[0] != 0x434f504550454850:
            return False
        pieces, = struct.unpack_from("I", header, 12)
        entries, = struct.unpack_from("Q", header, 56)
        record_size, = struct.unpack_from("Q", header, 80)
        if pieces != 1:
            return False
        offset, size = struct.unpack_from("QQ", header, 184)
        index = entries * 32
        if index + record_size > size or not index or not record_size:
            return False
        file.seek(offset)
        blob = file.read(index + record_size)
        where = rng.random() < 0.3
        part = blob[:index] if where else blob[index:]
        part = damage(rng, part)
        found = xxh(part, len(part))
        file.seek(offset if where else offset + index)
        file.write(part)
        header = bytearray(header)
        struct.pack_into("QQ", header, 88 if where else 104, found.low, found.high)
        self.damaged_record = bytes(header)
        return True

    def damage_undo(self, rng, directory):
        undo = directory / "test.pm.undo"
        names = sorted(os.listdir(undo))
        for _ in range(rng.choice([1, 1, 2, 4])):
            name = rng.choice(names)
            path = undo / name
            kind = stat.S_IFMT(path.lstat().st_mode) if os.path.lexists(path) else 0
            how = rng.randrange(9)
            number = name.partition(".")[0].partition("-")[2]
            new = undo / rng.choice([f"4-{rng.randrange(30)}", f"4-{2**64 - 1}", f"5-{number}",
                                     f"{2**64 - 1}-1", "4-0", "4-", "-", "4-1x", "4-1.file",
                                     f"4-{number}.aside", "x" * 255, "4-1\n", "0-0", "%s%n"])
            if how == 0 and kind == stat.S_IFLNK:
                text = os.readlink(path).encode()
                os.unlink(path)
                text = damage(rng, text).replace(b"\0", b"0")
                os.symlink(text, path)
            elif how == 1 and kind == stat.S_IFLNK:
                text = os.readlink(path)
                os.unlink(path)
                words = text.split(":")
                words[rng.randrange(len(words))] = rng.choice(
                    ["", "-1", str(2**64 - 1), str(2**63), "9" * 100, "x", "/", "0", "p", "m",
                     "M", "r", "d", "D", "b", "o", "/../" * 500, "%n%s"])
                os.symlink(":".join(words)[:4095] or "x", path)
            elif how == 2 and kind == stat.S_IFREG:
                data = damage(rng, path.read_bytes()[:200]) + path.read_bytes()[200:]
                path.write_bytes(data)
            elif how == 3 and kind == stat.S_IFREG:
                os.truncate(path, rng.randrange(path.stat().st_size + 100))
            elif how == 4 and kind:
                os.rename(path, new) if not os.path.lexists(new) else os.unlink(path)
            elif how == 5 and kind not in (0, stat.S_IFDIR):
                os.unlink(path)
                rng.choice([os.mkdir, os.mkfifo, lambda p: os.symlink(p, p),
                            lambda p: os.symlink("/etc/passwd", p),
                            lambda p: os.symlink("x" * 4095, p), lambda p: open(p, "w").close()])(path)
            elif how == 6 and not os.path.lexists(new):
                rng.choice([os.mkdir, os.mkfifo, lambda p: os.symlink("a" * 4095, p)])(new)
            elif how == 7 and kind == stat.S_IFLNK and not os.path.lexists(new):
                os.symlink(os.readlink(path), new)
            elif how == 8:
                aside = undo / f"4-{number}.aside"
                if not os.path.lexists(aside):
                    rng.choice([os.mkdir, os.mkfifo, lambda p: os.symlink("/etc/passwd", p)])(aside)

    def one(self, seed):
        rng = random.Random(seed)
        self.more = rng.choice([[], ["--check-first"], ["--epoch", "2"], ["--epoch", "99"],
                                ["--keep-files"]])
        if self.what == "undo":
            self.more = rng.choice([[], [], ["--check-first"]])
        directory = pathlib.Path(tempfile.mkdtemp(prefix=f"fuzz-{seed}-"))
        passwd = pathlib.Path("/etc/passwd").stat()
        self.killed_run(directory)
        getattr(self, f"damage_{self.what}")(rng, directory)
        try:
            if self.what == "undo":
                self.check_undo(directory)
            else:
                self.check(directory)
            now = pathlib.Path("/etc/passwd").stat()
            if (passwd.st_mtime_ns, passwd.st_size, passwd.st_mode) != \
                    (now.st_mtime_ns, now.st_size, now.st_mode):
                raise Wrong("another file has been changed")
        except Wrong as wrong:
            print((directory / "err").read_text(errors="replace")[-3000:])
            print(f"FAIL  {seed}: {wrong}\nkept in {directory}; again with: " + shlex.join(
                ["tests/fuzz/run.py", "--bin", self.bin, "--what", self.what, "--count", "1",
                 "--seed", str(seed)]), flush=True)
            return False
        finally:
            processes.end_children()
        shutil.rmtree(directory)
        return True

    def check_undo(self, directory):
        """Recovered, or refused with a line; what is not noted right need not be undone."""
        for arguments in (["--list"], ["--pack", directory / "packed.pm"]):
            status, _, _ = self.command(directory, *arguments, directory / "test.pm")
            if status not in self.own:
                raise Wrong(f"{arguments} ended with {status}")
        status, out, said = self.command(directory, *self.more, directory / "test.pm")
        self.seen[status] = self.seen.get(status, 0) + 1
        if not (status == 0 and b"right" in out or status in self.own and status and said):
            raise Wrong(f"recovery ended with {status}, {out}")


def main():
    parser = argparse.ArgumentParser(description="Damage pools and recover them.")
    parser.add_argument("--bin", default=str(ROOT / "build" / "bin"))
    parser.add_argument("--seed")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int)
    parser.add_argument("--what", choices=["pool", "fixed", "undo"], default="pool")
    args = parser.parse_args()
    processes.adopt_orphans()
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")  # at exit all is given back anyway
    fuzz = Fuzz(args)
    started, done, failed = time.monotonic(), 0, 0
    while done < args.count if args.count else time.monotonic() - started < args.seconds:
        seed = args.seed or str(random.SystemRandom().randrange(10**9))
        failed += not fuzz.one(seed)
        done += 1
    print(f"{args.what}: {done} times, {failed} failed; recovery's statuses: "
          f"{dict(sorted(fuzz.seen.items()))}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
