# SPDX-License-Identifier: MIT
"""A temporary file without a name, written and read while it is open.

live: rounds=60
"""
import sys
import tempfile

try:
    import pyheap
except ImportError:
    import plain as pyheap


def main():
    rounds = int(sys.argv[1])
    checksum = 0
    with tempfile.TemporaryFile() as file:
        for r in range(rounds):
            file.write(b"%d\n" % r * 20)
            pyheap.epoch()
            busy = sum(i * i for i in range(60000))
            file.seek(0)
            content = file.read()
            assert len(content.split()) == 20 * (r + 1), "the temporary file is not whole"
            checksum = (checksum * 31 + sum(content) + busy) % (2**61 - 1)
        print("bytes", len(content), "checksum", checksum)


main()
