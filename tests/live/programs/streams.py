# SPDX-License-Identifier: MIT
"""Standard input read line by line from a file, standard output and error written in between.

live: rounds=60 stdin=lines exit=9
"""
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def main():
    rounds = int(sys.argv[1])
    checksum = 0
    for r in range(rounds):
        for _ in range(300):
            line = sys.stdin.readline()
            if not line:
                sys.stdin.seek(0)
                print("once more from the start")
                line = sys.stdin.readline()
            checksum = (checksum * 31 + int(line.split()[1])) % (2**61 - 1)
        sys.stdout.write(f"{r} {checksum}")  # no end of line yet: it stays in the buffer
        pyheap.epoch()
        print(" and", sum(i * i for i in range(40000)) % 1000)
        print("round", r, file=sys.stderr)
        if r % 7 == 0:
            sys.stdout.flush()
            os.write(1, b"raw %d\n" % r)
    print("end", checksum)


main()
sys.exit(9)
