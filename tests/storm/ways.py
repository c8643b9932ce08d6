# SPDX-License-Identifier: MIT
"""ways - in which surroundings random programs run, how they die, and how they are recovered"""
import os
import resource
import shutil
import signal
import time

from chain import STATUS_FINISHED, Chain, ChainError
from commands import PATIENCE
from denied import denying
from processes import Target, end_children

SETTINGS = {"PYHEAP_MAP_LEAST": "1", "PYHEAP_AHEAD_LEAST": "1", "PYHEAP_FORCE_TRAMPOLINES": "1"}
ADDRESS_SPACE = 16 << 30


class Storm(Chain):
    """A chain by time: how many epochs there will be nobody knows. If the program ends before
    it was killed as often as wanted, that is enough."""

    def __init__(self, *arguments, mode, seconds):
        super().__init__(*arguments)
        rng = self.rng
        self.mode, self.seconds = mode, seconds
        self.path = self.pool           # by which it is recovered
        self.keep = rng.randint(2, 5)
        self.oldest = 0                 # that can be recovered with all files
        self.at_first = ["--keep", str(self.keep)]
        self.with_keepers = rng.random() < 0.5  # that die before their program does
        self.packs = rng.random() < 0.3
        if mode != "calls":
            self.options += ["--every", rng.choice(["5ms", "20ms", "100ms", "300ms"])]
        self.signals = rng.random() < 0.3
        if self.signals:
            self.options += ["--on-signal", "USR2"]
        self.final = rng.random() < 0.3
        if self.final:
            self.options += ["--final-epoch"]
        if rng.random() < 0.3:
            self.options += ["--staging", "4M"]
        self.environment = {name: value for name, value in SETTINGS.items() if rng.random() < 0.2}
        self.denied = rng.random() < 0.15
        self.limited = rng.random() < 0.15
        if self.limited:
            self.at_first += ["--pool-size", "4G"]

    def calm(self):
        """As most users have it: nothing of the above but the clock."""
        self.at_first, self.environment, self.signals = [], {}, False
        self.options = self.options[:2] if self.mode != "calls" else []
        self.denied = self.limited = self.final = self.with_keepers = self.packs = False
        self.recover = super().recover

    def about(self):
        words = [*self.at_first, *self.options, *self.environment]
        return " ".join(words + ["denied"] * self.denied + ["limited"] * self.limited)

    def confine(self):
        if self.limited:
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        if self.denied:
            denying("userfaultfd", "PROCMAP_QUERY")()

    def start(self, argv, first):
        os.environ.update(self.environment)
        try:
            return super().start(argv, first)
        finally:
            for name in self.environment:
                del os.environ[name]

    def let_live(self, keeper):
        """Mostly as long as it takes to get on by an epoch, and a little longer."""
        patience = time.monotonic() + 10 * PATIENCE
        while keeper.poll() is None and (not self.newest or self.rng.random() < 0.99) \
                and self.commands.progress(self.path) <= self.newest:
            if time.monotonic() > patience:
                raise self.hang(keeper, "no epoch becomes durable")
            if self.signals and self.rng.random() < 0.3:
                keeper.send_signal(signal.SIGUSR2)
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, 2 * self.seconds / self.wanted))

    def kill(self, keeper, target):
        """The ways to die: both at once, the program alone, its keeper some time before it, after
        a last epoch, and one of them stopped for a while before."""
        way = self.rng.random()
        if way < 0.2:
            self.stop_for_a_while(self.rng.choice([keeper.pid, target.pid]))
        if way > 0.8 and self.with_keepers and keeper.poll() is None:
            keeper.kill()
            time.sleep(self.rng.expovariate(5))
            target.signal(signal.SIGKILL)
            target.wait_dead(PATIENCE)
            target.close()
            return keeper.wait(), True
        if way > 0.6 and self.final and keeper.poll() is None:
            target.close()
            keeper.send_signal(signal.SIGTERM)
            status = self.wait(keeper, PATIENCE, "it does not end after its final epoch")
            return (-signal.SIGKILL if status in (-signal.SIGTERM, 128 + signal.SIGTERM)
                    else status), False
        return super().kill(keeper, target)

    def stop_for_a_while(self, pid):
        try:
            target = Target(pid)
        except ProcessLookupError:
            return
        if target.signal(signal.SIGSTOP):
            time.sleep(self.rng.uniform(0, 0.1))
            target.signal(signal.SIGCONT)
            time.sleep(self.rng.uniform(0, 0.05))
        target.close()

    def recover(self):
        """In one of many ways, and now and then by an attempt that is killed, keeper first."""
        options = list(self.options)
        epochs = sorted(self.commands.list(self.path)[1])
        self.oldest = max(self.oldest, epochs[-1] - self.keep + 1)
        if self.rng.random() < 0.15:
            epochs = [epoch for epoch in epochs if epoch >= self.oldest]
            options += ["--epoch", str(self.rng.choice(epochs))]
            self.newest = int(options[-1])
            self.log.append(f"to epoch {self.newest} of {epochs}")
        elif self.packs and self.rng.random() < 0.2:
            self.pack()
        if self.rng.random() < 0.2:
            options += ["--check-first"]
        if self.rng.random() < 0.2:
            options += ["--count-downtime"]
        self.path = self.rng.choice([self.pool, self.alias(), os.path.relpath(self.pool, "/")])
        keeper = self.start([self.commands.recover, *options, self.path], False)
        self.path = os.path.join("/", self.path)
        if self.rng.random() < 0.2:
            time.sleep(self.rng.uniform(0, 0.05))
            if keeper.poll() is None:
                self.log.append("killed with keeper while it recovered")
                keeper.kill()
                keeper.wait()
                end_children()
                return self.start([self.commands.recover, *options, self.path], False)
        return keeper

    def alias(self):
        """The pool by another path."""
        alias = self.directory.parent / "alias"
        if not alias.is_symlink():
            alias.symlink_to(self.directory)
        return str(alias / os.path.basename(self.pool))

    def pack(self):
        """Go on with a packed copy, the pool itself being gone."""
        packed = str(self.directory / f"packed-{self.kills}.pm")
        done = self.finish_quietly([self.commands.recover, "--pack", packed, self.pool])
        if done:
            raise ChainError(f"packing ended with {done}")
        os.unlink(self.pool)
        shutil.rmtree(self.pool + ".undo", ignore_errors=True)
        self.log.append(f"packed into {packed}")
        self.pool = packed

    def finish_quietly(self, argv):
        return self.wait(self.start(argv, False), PATIENCE, f"{argv} does not end")

    def ended(self, status):
        """Which nobody may have seen, if its keeper was killed in that instant."""
        self.wanted = max(min(self.wanted, self.kills), 1)
        if status == STATUS_FINISHED and "with keeper" in self.log[-1]:
            status = self.program.exit
        return super().ended(status)
