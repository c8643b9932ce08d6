# SPDX-License-Identifier: MIT
"""asyncio's watchers of children: subprocesses that ended before the epoch, the watcher idle over
it, and new ones after the recovery; pidfds where the loop uses them.

live: rounds=8
"""
import asyncio
import subprocess
import sys

import pyheap


async def shell(command, given=b""):
    process = await asyncio.create_subprocess_shell(
        command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate(given)
    return process.returncode, out


async def run(rounds):
    for r in range(rounds):
        both = await asyncio.gather(shell("cat", b"%d" % r), shell(f"exit {r % 9}"))
        assert both == [(0, b"%d" % r), (r % 9, b"")], both
        done = subprocess.Popen(["true"])
        assert done.wait() == 0
        pyheap.epoch()
        assert done.poll() == 0
        if r % 10 == 0:
            print(r, *both)


def main():
    rounds = int(sys.argv[1])
    if sys.version_info < (3, 12):
        asyncio.set_event_loop(asyncio.new_event_loop())
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
        asyncio.get_child_watcher().attach_loop(asyncio.get_event_loop())
        asyncio.get_event_loop().run_until_complete(run(rounds // 2))
        asyncio.set_child_watcher(asyncio.ThreadedChildWatcher())
        asyncio.get_event_loop().run_until_complete(run(rounds - rounds // 2))
    else:
        asyncio.run(run(rounds))


main()
