# SPDX-License-Identifier: MIT
"""Output files in modes w, a and wb, unflushed at the epoch, and read files with positions.

live: rounds=60
"""
import os
import sys

try:
    import pyheap
except ImportError:
    import plain as pyheap


def make_input():
    with open("input.txt", "w", encoding="ascii") as file:
        for i in range(30000):
            file.write(f"line {i} {i * i}\n")


def main():
    rounds = int(sys.argv[1])
    make_input()
    with open("log.txt", "w", encoding="ascii") as file:
        file.write("the file that is appended to starts with this\n")
    lines = open("input.txt", encoding="ascii")
    raw = open("input.txt", "rb", buffering=0)
    raw.seek(1000)
    with open("written.txt", "w", encoding="ascii") as written, \
            open("log.txt", "a", encoding="ascii") as log, open("bytes.bin", "wb") as binary:
        for r in range(rounds):
            for _ in range(40):
                line = lines.readline()
                if not line:
                    lines.seek(0)
                    line = lines.readline()
                written.write(f"{r} {line}")
            piece = raw.read(777)
            if len(piece) < 777:
                raw.seek(r)
            binary.write(piece * 10)
            log.write(f"round {r}\n")
            if r % 3 == 0:
                log.flush()
            pyheap.epoch()
            busy = sum(i * i for i in range(60000))
            if r % 20 == 0:
                print(r, busy, written.tell(), binary.tell(), raw.tell())
    assert os.path.getsize("log.txt") > 0
    print("end", lines.tell(), raw.tell())


main()
