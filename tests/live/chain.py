# SPDX-License-Identifier: MIT
"""chain - run a program, kill it again and again, recover it each time, compare the end

What must hold at the end of a chain:
  C1  standard output is byte for byte that of a run in plain Python that was never killed;
  C2  so are all files in the program's directory, their names and their modes;
  C3  the exit status is the same;
  C4  as many kills as asked for happened, each followed by a recovery;
and on the way:
  C5  the newest durable epoch never goes back;
  C6  after a kill the pool passes `pmempool check` and `pyheap-recover --verify` (looked at
      after the first kill and after some of the others);
  C7  a keeper whose program was killed says so, and names the way on;
  C8  a program that ended well is not run again; one that ended with another status than 0 can
      be recovered as after a kill, and C1 to C3 hold for that once more.

Everything random comes from one generator, so a seed names a chain; the kernel's scheduling
stays random of course.
"""
import os
import pathlib
import signal
import stat
import subprocess
import time

from commands import PATIENCE, pmempool_check
from processes import Target, describe, program_of

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
STATUS_FINISHED = 79
ENVIRONMENT = {"LIVE_WORD": "the environment of the first start"}


class ChainError(Exception):
    """Something that must hold does not."""


class Outcome:
    """What a run leaves behind."""

    def __init__(self, status, stdout, directory, seconds):
        self.status = status
        self.stdout = stdout
        self.files = {}
        for path in sorted(pathlib.Path(directory).rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            content = path.read_bytes() if path.is_file() else None
            self.files[str(path.relative_to(directory))] = (mode, content)
        self.seconds = seconds

    def differences(self, other):
        """Lines about how `other` is not the same; empty if it is."""
        lines = []
        if self.status != other.status:
            lines.append(f"exit status {other.status} instead of {self.status}")
        if self.stdout != other.stdout:
            lines.append("standard output " + first_difference(self.stdout, other.stdout))
        for name in sorted(self.files.keys() | other.files.keys()):
            mine, others = self.files.get(name), other.files.get(name)
            if mine is None or others is None:
                lines.append(f"file {name} " + ("too many" if mine is None else "missing"))
            elif mine[0] != others[0]:
                lines.append(f"file {name} has mode {others[0]:o} instead of {mine[0]:o}")
            elif mine[1] != others[1]:
                lines.append(f"file {name} " + first_difference(mine[1], others[1]))
        return lines


def first_difference(wanted, found):
    at = next((i for i, (a, b) in enumerate(zip(wanted, found)) if a != b),
              min(len(wanted), len(found)))
    return (f"has {len(found)} bytes instead of {len(wanted)}, and differs from byte {at} on: "
            f"{found[at:at + 60]!r} instead of {wanted[at:at + 60]!r}")


class PythonDied(ChainError):
    """The interpreter crashed or hung by itself, without pyheap."""


def run_plain(program, python, rounds, directory):
    """The reference: plain Python, never killed."""
    work = pathlib.Path(directory, "work")
    work.mkdir(parents=True)
    out = pathlib.Path(directory, "stdout")
    started = time.monotonic()
    with open(out, "wb") as stdout, open_stdin(program) as stdin:
        try:
            done = subprocess.run([python, program.path, *program.arguments(rounds)], cwd=work,
                                  stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, **ENVIRONMENT}, timeout=5 * PATIENCE)
        except subprocess.TimeoutExpired:
            raise PythonDied(f"{program.name}: plain Python has not ended after {5 * PATIENCE} s") from None
    seconds = time.monotonic() - started
    if done.returncode < 0:
        raise PythonDied(f"{program.name}: plain Python died of signal {-done.returncode}")
    if done.returncode != program.exit:
        raise ChainError(f"{program.name} itself is wrong: in plain Python it ended with "
                         f"{done.returncode} instead of {program.exit}:\n{done.stderr}")
    return Outcome(done.returncode, out.read_bytes(), work, seconds)


def open_stdin(program):
    return open(program.stdin or os.devnull, "rb")


class Chain:
    """One program on one interpreter, killed until it has ended."""

    def __init__(self, commands, program, python, rounds, kills, directory, rng, options=()):
        self.commands = commands
        self.options = [*options, *program.options]  # of pyheap-run and pyheap-recover
        self.at_first = []                           # of pyheap-run alone
        self.program = program
        self.python = python
        self.rounds = rounds
        self.wanted = kills
        self.directory = pathlib.Path(directory)
        self.rng = rng
        self.work = self.directory / "work"
        self.work.mkdir(parents=True)
        self.pool = str(self.directory / "test.pm")
        self.stdout = self.directory / "stdout"
        self.stderr = self.directory / "stderr"
        self.kills = 0
        self.at_once = 0     # kills within the first milliseconds after a recovery
        self.with_keeper = 0  # kills that took the keeper too
        self.newest = 0      # durable epoch
        self.alive = 0.0     # seconds that programs were running
        self.log = []

    confine = None  # what a keeper does to itself before it starts

    def start(self, argv, first):
        """A keeper with its program. A recovery gets nothing of the first start's surroundings
        but its standard streams."""
        mode = "wb" if first else self.rng.choice(["ab", "r+b"])
        with open(self.stdout, mode) as out, open(self.stderr, "ab") as err, \
                open_stdin(self.program) as stdin:
            out.seek(0, os.SEEK_END)
            environment = {**os.environ, **(ENVIRONMENT if first else {"LIVE_WORD": "wrong"})}
            return subprocess.Popen(argv, cwd=self.work if first else "/", stdin=stdin, stdout=out,
                                    stderr=err, env=environment, umask=-1 if first else 0o077,
                                    preexec_fn=self.confine)

    def let_live(self, keeper):
        """Wait for a random progress, such that the wanted kills fit in, and a little longer."""
        total = self.rounds * self.program.epochs
        share = max(total - self.newest, 0) / (self.wanted - self.kills + 2)
        target = self.newest + int(self.rng.uniform(0, 1.2) * share)
        if self.kills == 0:
            target = max(target, 1)
        deadline = time.monotonic() + 10 * PATIENCE
        while keeper.poll() is None and self.commands.progress(self.pool) < target:
            if time.monotonic() > deadline:
                raise self.hang(keeper, f"epoch {target} does not become durable")
            time.sleep(0.02)
        time.sleep(self.rng.uniform(0, 0.03))

    def hang(self, keeper, text):
        parts = [text, describe(keeper.pid)]
        target = program_of(keeper, 1)
        if target:
            parts.append(describe(target.pid))
            target.signal(signal.SIGKILL)
            target.close()
        keeper.kill()
        keeper.wait()
        return ChainError("\n".join(parts))

    def wait(self, keeper, seconds, text):
        try:
            return keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.hang(keeper, text) from None

    def kill(self, keeper, target):
        """SIGKILL, now. Whether the keeper is taken along is random."""
        with_keeper = self.rng.random() < 0.3
        status = keeper.poll()
        if status is not None:  # the program was faster
            target.close()
            return status, False
        if with_keeper:
            victims = [Target(keeper.pid), target]
            self.rng.shuffle(victims)
            for victim in victims:
                victim.signal(signal.SIGKILL)
            keeper_target = next(v for v in victims if v is not target)
            target.wait_dead(PATIENCE)
            keeper_target.close()
        else:
            target.signal(signal.SIGKILL)
        target.close()
        status = self.wait(keeper, PATIENCE, "the keeper does not end after its program")
        return status, with_keeper

    def run(self):
        """@return the Outcome, or None if the program ended before it was killed often enough."""
        keeper = self.start([self.commands.run, *self.options, *self.at_first, "--pool", self.pool,
                             "--python", self.python, self.program.path,
                             *self.program.arguments(self.rounds)], True)
        at_once = False
        while True:
            target = program_of(keeper, PATIENCE)
            started = time.monotonic()
            if target and self.kills < self.wanted:
                if at_once:
                    time.sleep(self.rng.uniform(0, 0.005))
                else:
                    self.let_live(keeper)
                note = self.stderr.stat()
                status, with_keeper = self.kill(keeper, target)
            else:
                if target:
                    target.close()
                status = self.wait(keeper, 10 * PATIENCE, "the program does not end")
                with_keeper = False
            self.alive += time.monotonic() - started

            if status not in KILLED:
                return self.ended(status)
            if not target or self.kills == self.wanted:
                raise ChainError(f"the program died of SIGKILL, which nobody sent: {status}")
            self.kills += 1
            self.at_once += at_once
            self.with_keeper += with_keeper
            self.inspect(with_keeper, note)
            at_once = self.rng.random() < 0.3
            keeper = self.recover()

    def recover(self):
        return self.start([self.commands.recover, *self.options, self.pool], False)

    def read_stderr(self):
        return self.stderr.read_text(errors="replace")

    def said_since(self, note):
        """What is new in stderr since it was looked at. A recovery may have cut it back in
        between, with the program's other files: then only its last line surely is, however long
        the file has become again."""
        now, text = self.stderr.stat(), self.stderr.read_bytes()
        if (now.st_size, now.st_mtime_ns) == (note.st_size, note.st_mtime_ns):
            return ""
        lines = text.splitlines(keepends=True)
        while lines and (b"resource_tracker" in lines[-1] or lines[-1].startswith(b" ")):
            lines.pop()  # of children that have ended later than the keeper
        last_line = len(b"".join(lines[:-1]))
        text = text[min(note.st_size, last_line):]
        return text.decode(errors="replace")

    def inspect(self, with_keeper, note):
        """What must hold after every kill."""
        status, epochs, text = self.commands.list(self.pool)
        if status != 0:
            raise ChainError(f"--list ended with {status} after kill {self.kills}: {text}")
        newest = max(epochs, default=0)
        if newest < max(self.newest, 1):
            raise ChainError(f"C5: after kill {self.kills} the newest epoch is {newest}; "
                             f"it was {self.newest}")
        self.newest = newest
        self.log.append(f"kill {self.kills}{' with keeper' if with_keeper else ''}: "
                        f"{self.alive:.3f} s, epoch {newest}")
        if not with_keeper and "pyheap-recover" not in self.said_since(note):
            raise ChainError("C7: the keeper does not say how to go on; it says: "
                             + self.said_since(note))
        if self.kills == 1 or self.rng.random() < 0.25:
            wrong = pmempool_check(self.pool) or self.commands.verify(self.pool)
            if wrong:
                raise ChainError(f"C6: after kill {self.kills}: {wrong}")

    def ended(self, status):
        # Rare and right: the keeper was killed in the instant in which the program had ended.
        if status == STATUS_FINISHED and self.log and "with keeper" in self.log[-1]:
            self.kills -= 1
            status = self.program.exit
        if status != self.program.exit:
            raise ChainError(f"ended with status {status} instead of {self.program.exit} "
                             f"after {self.kills} kills")
        if self.kills < self.wanted:
            return None
        note = len(self.read_stderr())
        wanted = STATUS_FINISHED if status == 0 else status
        again = self.wait(self.start([self.commands.recover, self.pool], False), PATIENCE,
                          "recovering a program that had ended does not end")
        if again != wanted:
            raise ChainError(f"C8: recovering it once more gave {again} instead of {wanted}: "
                             f"{self.read_stderr()[note:]}")
        return Outcome(status, self.stdout.read_bytes(), self.work, self.alive)
