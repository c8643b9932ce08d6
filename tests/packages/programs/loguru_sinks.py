# SPDX-License-Identifier: MIT
"""loguru: a log file that is rotated by size, a sink with a queue and a thread of its own, context
that is bound, exceptions with their values.

live: rounds=40 needs=loguru
"""
import glob
import os
import sys

import pyheap
from loguru import logger


def main():
    rounds = int(sys.argv[1])
    seen = []
    logger.remove()
    logger.add("run.log", format="{level} {extra[r]} {message}", rotation=20_000,
               retention=lambda files: None, compression=None, delay=True, backtrace=False)
    logger.add(sys.stdout, format="{message}", level="WARNING")
    logger.add(lambda message: seen.append(message.record["extra"]["r"]), enqueue=True)
    for r in range(rounds):
        with logger.contextualize(r=r):
            logger.info("begins {}", "x" * 50)
            pyheap.epoch()  # the thread of the third sink waits for its queue
            try:
                1 / (r % 4)
            except ZeroDivisionError:
                logger.opt(exception=False).debug("no quotient")
            if r % 10 == 0:
                logger.warning("round {r}", r=r)
        logger.complete()
        assert seen[-1] == r
    logger.remove()
    with open("run.log") as file:
        assert "begins" in file.read()
    for name in glob.glob("run.*.log"):  # rotated: named after the time
        os.unlink(name)
    os.unlink("run.log")
    print(len(seen))


main()
