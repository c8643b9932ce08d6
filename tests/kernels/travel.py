#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""travel.py - programs that go from one machine to another: another kernel, another processor

    tests/kernels/run.py --travel             the whole, as below
    tests/kernels/travel.py BIN TOP NAME...   one leg of programs' ways, wherever this runs

Some programs start in the emulated machine, under Debian's kernel and on a processor of few
features, others here. Each is killed, and all are carried over: those from there must go on
here; those from here must go on there or, if the processor lacks something that they may use,
be refused with its name and nothing touched, and go on here afterwards. At last all end here,
with the output of plain Python. What must hold of a program on its way, traveller.py asserts.

TOP is the same path in both machines. Of a program TOP/NAME holds the pool, what it has
written, and the processor's flags where it was last.
"""
import hashlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "live"))
from case import data_of  # noqa: E402
from processes import children_of, describe  # noqa: E402

PYTHON = "/usr/bin/python3"
LEGS = 4
HANGS = 600  # seconds that no leg takes
REFUSED = 86
# Of a processor's features those that programs choose their code by, as /proc/cpuinfo names them.
CHOSEN_BY = set("""ssse3 sse4_1 sse4_2 popcnt avx avx2 fma f16c bmi1 bmi2 movbe aes sha_ni vaes
                gfni vpclmulqdq avx512f avx512bw avx512vl avx512_vbmi2 avx512_vpopcntdq avx512_bf16
                pku amx_tile xsavec""".split())


def flags():
    return set(re.search(r"^flags\s*:(.*)", pathlib.Path("/proc/cpuinfo").read_text(),
                         re.MULTILINE)[1].split())


# libpmemobj writes to this page of its own whenever it opens a pool: what a pointer is now.
OF_LIBPMEMOBJ = 4096, 8192


def content(path):
    """Of a file what is in it and where, holes left out."""
    total = hashlib.sha256()
    leave_out = OF_LIBPMEMOBJ if path.name == "test.pm" else (0, 0)
    with open(path, "rb") as file:
        for at, part in data_of(file):
            part = bytearray(part)
            total.update(b"%d-%d:" % (at, at + len(part)))
            left_out = slice(*(max(0, n - at) for n in leave_out))
            part[left_out] = bytes(len(part[left_out]))
            total.update(part)
    return path.stat().st_size, total.hexdigest()


def state(directory):
    """All that a program has, its pool and what lies beside that."""
    found = {}
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        found[str(path)] = (about.st_mode, path.suffix == ".pm" or about.st_mtime_ns, about.st_ino,
                            content(path) if path.is_file() and not path.is_symlink() else None)
    return found


class Traveller:
    """One program, wherever it is."""

    def __init__(self, programs, top, name):
        self.programs = programs
        self.name = name
        self.directory = top / name
        self.pool = self.directory / "test.pm"
        self.arguments = [HERE / "traveller.py", str(LEGS), *(["numpy"] if "numpy" in name else [])]

    def go(self, argv):
        work = self.directory / "work"
        work.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "stdout", "ab") as out, \
                subprocess.Popen(list(map(str, argv)), cwd=work, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=subprocess.PIPE, text=True) as keeper:
            try:
                return keeper.wait(HANGS), keeper.stderr.read()
            except subprocess.TimeoutExpired:
                doing = [describe(pid) for pid in (keeper.pid, *children_of(keeper.pid))]
                programs = children_of(keeper.pid)
                for pid in programs:
                    os.kill(pid, signal.SIGUSR2)  # it says where it is
                time.sleep(10)
                for pid in (*programs, keeper.pid):
                    os.kill(pid, signal.SIGKILL)
                return "hangs", "\n".join([*doing, keeper.stderr.read()])

    def say(self, right, what, more=""):
        print(f"{'ok' if right else 'FAILED'}: {self.name} {what}" + ("" if right else
              f"\n{more}"), flush=True)
        return right

    def leg(self):
        """Start, or go on; until it is killed, ends or is refused. @return whether all was right"""
        note = self.directory / "flags"
        if not self.pool.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            status, said = self.go([self.programs / "pyheap-run", "--pool", self.pool, "--python",
                                    PYTHON, *self.arguments])
            note.write_text(" ".join(flags()))
            return self.say(status in (-9, 137), "has started", f"{status} {said}")
        missing = (set(note.read_text().split()) & CHOSEN_BY) - flags()
        before = state(self.directory)
        status, said = self.go([self.programs / "pyheap-recover", self.pool])
        if missing:
            lines = said.splitlines()
            return self.say(status == REFUSED and len(lines) == 1 and state(self.directory) == before
                            and all(re.search(rf"\b{name}\b", said) for name in missing),
                            f"was refused, nothing touched: {said.strip()}", f"{status}; {missing}")
        note.write_text(" ".join(flags()))
        ended = (self.directory / "stdout").read_bytes().endswith(b"\nended\n")
        return self.say(status == 0 if ended else status in (-9, 137),
                        "has gone on" + " and ended" * ended, f"{status} {said}")

    def ended(self):
        return (self.directory / "stdout").read_bytes().endswith(b"\nended\n")

    def compare(self):
        """The output is that of plain Python."""
        plain = self.directory / "plain"
        plain.mkdir()
        done = subprocess.run([PYTHON, *self.arguments], cwd=plain, stdin=subprocess.DEVNULL,
                              capture_output=True, check=True)
        right = (self.directory / "stdout").read_bytes() == done.stdout and \
            (self.directory / "work" / "log.txt").read_bytes() == (plain / "log.txt").read_bytes()
        return self.say(right, "has written what plain Python writes", f"see {self.directory}")


def legs(programs, top, names):
    print(*os.uname()[::2], f"with {len(flags() & CHOSEN_BY)} of {len(CHOSEN_BY)} features")
    return all([Traveller(programs, top, name).leg() for name in names])


def there(machine, cpu, programs, top, names):
    """A leg in the emulated machine; what the programs have goes there and comes back."""
    out = machine.work / "out.tar"
    with open(out, "wb") as file:
        file.truncate(4 << 30)
    quoted = {key: shlex.join(map(str, value)) for key, value in
              {"top": [top], "names": names, "leg": [PYTHON, __file__, programs, top, *names]}.items()}
    status = machine.run("""mount --bind $TMPDIR {top} && cd {top} || exit 1
chown -R 0:0 .
{leg}
status=$?
tar -cSf /dev/vdb --format=posix {names} || exit 1
exit $status""".format(**quoted), programs, cpu, top, out)
    for name in names if status is not None else ():
        shutil.rmtree(top / name, ignore_errors=True)
    if status is not None:
        subprocess.run(["tar", "-xSpf", out, "-C", top], check=True)
    out.unlink()
    return status == 0


def run(machine, programs):
    """The whole way. @return an exit status"""
    cpu = "Haswell,+mpx" if "avx2" in flags() else "Nehalem"
    top = machine.work / "travel"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    from_there, from_here = ["there", "there-numpy"], ["here", "here-numpy"]
    everybody = from_there + from_here
    right = there(machine, cpu, programs, top, from_there)
    right = right and legs(programs, top, everybody)
    right = right and there(machine, cpu, programs, top, everybody)
    travellers = [Traveller(programs, top, name) for name in everybody]
    while right and not all(one.ended() for one in travellers):
        right = all([one.leg() for one in travellers if not one.ended()])
    right = right and all([one.compare() for one in travellers])
    if right:
        shutil.rmtree(top)
    else:
        print(f"kept in {top}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(not legs(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]))
