# SPDX-License-Identifier: MIT
"""Files that the program itself renames and removes: logs rotated by the standard library, by size and by
hand, a file saved by renaming another over it, a scratch file that goes while it is open.

live: rounds=60
"""
import logging.handlers
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def rotating():
    """The oldest of several goes with each rotation."""
    handler = logging.handlers.RotatingFileHandler("log", maxBytes=2000, backupCount=3)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("rotating")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return logger


def by_hand(r, held):
    """Renamed while it is open, into another directory, and opened anew under its name."""
    held["file"].write(f"line {r}\n" * (r % 5 + 1))
    held["file"].flush()
    if r % 4 == 3:
        os.rename("by-hand", f"old/{r}")
        with open(f"old/{r}") as file:
            assert file.read() == held["said"] + f"line {r}\n" * (r % 5 + 1)
        held["file"].close()
        held["file"] = open("by-hand", "w")
        held["said"] = ""
    else:
        held["said"] += f"line {r}\n" * (r % 5 + 1)


def saved(r, held):
    """The old content is read from the file that was there at the epoch."""
    with open("saved.new", "w") as file:
        file.write(f"state {r}\n")
    held["saved"].seek(0)
    assert held["saved"].read() == f"state {r - 1}\n", r
    os.replace("saved.new", "saved")
    held["saved"].close()
    held["saved"] = open("saved")


def scratch(r, held):
    """Goes while it is open, by every call; and is written on."""
    name = f"scratch-{r}"
    if held["scratch"]:
        held["scratch"].seek(0)
        assert held["scratch"].read() == f"first {r - 1}\nsecond\n"
        held["scratch"].close()
    held["scratch"] = open(name, "w+")
    held["scratch"].write(f"first {r}\n")
    held["scratch"].flush()
    pyheap.epoch()
    [os.remove, os.unlink, lambda path: os.unlink(os.path.basename(path), dir_fd=held["dir"])][r % 3](name)
    held["scratch"].write("second\n")
    held["scratch"].flush()


def main():
    os.mkdir("old")
    with open("saved", "w") as file:
        file.write("state -1\n")
    held = {"file": open("by-hand", "w"), "said": "", "saved": open("saved"), "scratch": None,
            "dir": os.open(".", os.O_RDONLY)}
    logger = rotating()
    for r in range(int(sys.argv[1])):
        for n in range(10):
            logger.info("%d %d %s", r, n, "x" * (r * 31 % 90))
        by_hand(r, held)
        saved(r, held)
        scratch(r, held)
        pyheap.epoch()
        print(r, sorted(os.listdir("old")))


main()
