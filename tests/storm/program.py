# SPDX-License-Identifier: MIT
"""program.py - a random program: what the seed says, in what the seed says

    program.py ROUNDS SEED [--calls]

Pieces, of which each holds something across its yields, checks it, and says what it sees to a
file of its own. They are driven, mixed, by several threads of different kinds: bare ones, deep in
a recursion, within an exception's handler, an asyncio loop, a callback from C, a traced one.
With --calls any of them takes epochs in between.

What a piece says depends on its seed alone: not on time, scheduling, ids or addresses. What it
does to the world outside of its memory and open files it can do twice: a recovery repeats it.
"""
import asyncio
import ctypes
import os
import random
import sys
import threading
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [HERE, os.path.join(HERE, "..", "live", "programs")]

try:
    import pyheap
except ImportError:
    import plain as pyheap

import pieces  # noqa: E402


class Context:
    """What a piece is given: its own dice, how long it lasts, its file, and epochs."""

    def __init__(self, name, seed, rounds, calls):
        self.name = name
        self.rng = random.Random(f"{seed}/{name}")
        self.rounds = range(rounds)
        self.calls = calls
        mode, buffering = self.rng.choice([("w", -1), ("w", 1), ("a", -1), ("r+", -1), ("wb", 0),
                                           ("ab", -1), ("ab", 0), ("r+b", 100)])
        self.file = open(name, mode, buffering, opener=pieces.anew)

    def say(self, *words):
        line = " ".join(map(str, words)) + "\n"
        self.file.write(line.encode() if "b" in self.file.mode else line)
        if self.rng.random() < 0.3:
            self.file.flush()

    def epoch(self):
        """Perhaps an epoch, right here. Without a keeper there are no more, which may be."""
        chance = random.random()
        try:
            if self.calls and chance < self.calls:
                pyheap.epoch(wait=chance < self.calls / 10)
            elif self.calls and chance < 1.1 * self.calls:
                pyheap.sync()
        except getattr(pyheap, "KeeperError", ()):
            pass


class Driver:
    """Some pieces, taken in turns as the dice fall, until all of them have ended."""

    def __init__(self, contexts, makers, seed, calls):
        self.rng = random.Random(seed)
        self.calls = calls
        self.running = [(context, maker(context)) for context, maker in zip(contexts, makers)]
        self.failed = False

    def step(self):
        """@return False when there is nothing more to do."""
        if not self.running:
            return False
        at = self.rng.randrange(len(self.running))
        context, piece = self.running[at]
        try:
            next(piece)
        except StopIteration:
            context.say("ended")
            context.file.close()
            del self.running[at]
        except BaseException:
            print(f"piece {context.name}:", file=sys.stderr)
            traceback.print_exc()
            self.failed = True
            del self.running[at]
        context.epoch()
        return True

    def plainly(self):
        while self.step():
            pass

    def deeply(self, depth=250):
        return self.deeply(depth - 1) if depth else self.plainly()

    def handling(self):
        try:
            raise LookupError("being handled")
        except LookupError:
            self.plainly()
            assert sys.exc_info()[0] is LookupError

    def looping(self):
        async def run():
            async def tick():
                while True:
                    await asyncio.sleep(0.01)
            ticking = asyncio.ensure_future(tick())
            while self.step():
                await asyncio.sleep(0)
            ticking.cancel()
        asyncio.new_event_loop().run_until_complete(run())

    def from_c(self):
        done = ctypes.CFUNCTYPE(None)(self.plainly)
        done()

    def traced(self):
        seen = [0]

        def trace(frame, event, arg):
            seen[0] += 1
            return trace if seen[0] % 3 else None
        sys.settrace(trace)
        self.plainly()
        sys.settrace(None)
        assert seen[0]

    KINDS = (plainly, deeply, handling, looping, from_c, traced)


def main():
    rounds, seed = int(sys.argv[1]), sys.argv[2]
    calls = 0.05 if "--calls" in sys.argv else 0
    rng = random.Random(seed)
    only = os.environ.get("STORM_ONLY")
    if only:
        names = only.split(",")
    else:
        names = rng.sample(sorted(pieces.ANYWHERE), rng.randint(3, 14))
    if pieces.FORKING & set(names) and not only:
        names = [name for name in names if name not in pieces.UNFORKABLE]
    count = rng.randint(1, 5)
    groups = [[] for _ in range(count + 1)]
    for n, name in enumerate(names):
        if name in pieces.ANYWHERE:
            groups[rng.randrange(count + 1)].append(f"{n:02}-{name}")
    main_names = [n for n in names if n in pieces.MAIN] if only else \
        rng.sample(sorted(pieces.MAIN), rng.randint(0, 2))
    groups[0] += [f"m{n}-{name}" for n, name in enumerate(main_names)]
    print(groups)
    sys.stdout.flush()
    restored = []
    if pyheap.active:
        pyheap.on_restore(lambda: restored.append(1))
    threading.stack_size(rng.choice([0, 0, 1 << 20, 64 << 20]))
    sys.setswitchinterval(rng.choice([0.005, 0.0005, 0.05]))
    drivers = []
    for n, group in enumerate(groups):
        contexts = [Context(name, f"{seed}", rounds, calls) for name in group]
        makers = [pieces.ALL[name.partition("-")[2]] for name in group]
        drivers.append(Driver(contexts, makers, f"{seed}/{n}", calls))
    threads = []
    for driver in drivers[1:]:
        kind = rng.choice(Driver.KINDS)
        threads.append(threading.Thread(target=kind, args=(driver,)))
        threads[-1].start()
    rng.choice(Driver.KINDS)(drivers[0])
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
    print("ended", any(driver.failed for driver in drivers))
    if any(driver.failed for driver in drivers):
        sys.exit(1)


if __name__ == "__main__":
    main()
