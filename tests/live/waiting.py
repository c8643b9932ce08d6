# SPDX-License-Identifier: MIT
"""waiting - programs that take an epoch in a state that a test prepares, and are killed there"""
import signal

from case import Case
from commands import PATIENCE

# Takes an epoch in the state that the test prepares, says so and waits to be killed; a
# recovered one ends. `after` is what it does between its last epoch and its death.
WAITING = """
    import fcntl, os, sqlite3, sys, time
    import pyheap
    def after():
        pass
    {prepare}
    number = pyheap.epoch(wait=True)
    if not pyheap.status()["recoveries"]:
        after()
        print("epoch", number, flush=True)
        time.sleep(600)
    {finish}
    print("recovered")
"""


class Waiting(Case):
    def stopped(self, prepare, finish="pass", options=(), **more):
        """A program that was killed after the epoch that it took when prepared."""
        text = WAITING.format(prepare=prepare, finish=finish)
        keeper, target = self.start(self.argv(text, options=options), **more)
        self.wait_printed("epoch")
        target.signal(signal.SIGKILL)
        keeper.wait(PATIENCE)

    def assert_recovers(self, *options, **more):
        done = self.finish([self.commands.recover, *options, self.pool], **more)
        self.assert_ended(done)
        self.assertIn("recovered", done.stdout)
        return done
