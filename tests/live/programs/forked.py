# SPDX-License-Identifier: MIT
"""Children made with os.fork: they work, but epoch() raises a clear error in them.

live: rounds=60 exit=5
"""
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def child(active, data):
    """@return the child's exit status: 5 if all is as it must be."""
    data[0] = "the child's own"
    extra = [str(i) for i in range(1000)]  # allocating works
    if not active:
        return 5
    try:
        pyheap.epoch()
    except pyheap.ForkError as error:
        return 5 if "fork" in str(error) and isinstance(error, pyheap.Error) and extra else 6
    return 7


def main():
    rounds = int(sys.argv[1])
    active = pyheap.active
    data = ["the parent's"]
    for r in range(rounds):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os._exit(child(active, data))
        status = os.waitpid(pid, 0)[1]
        busy = sum(i * i for i in range(40000))
        print(r, os.WEXITSTATUS(status), busy, data)
        assert status == 5 << 8, f"the child ended with {status:#x}"
        pyheap.epoch()


main()
sys.exit(5)
