# SPDX-License-Identifier: MIT
"""Objects with state in C: random, hashlib, zlib, lzma, bz2, decimal contexts, big integers, re.

live: rounds=40
"""
import bz2
import decimal
import hashlib
import lzma
import random
import re
import sys
import zlib

try:
    import pyheap
except ImportError:
    import plain as pyheap


def main():
    rounds = int(sys.argv[1])
    dice = random.Random(42)
    random.seed(43)
    hashes = [hashlib.new(name) for name in ("md5", "sha256", "sha512", "blake2b", "sha3_256")]
    packers = [zlib.compressobj(9), bz2.BZ2Compressor(), lzma.LZMACompressor(preset=1)]
    packed = [b"", b"", b""]
    words = re.finditer(r"\w+", "lorem ipsum dolor sit amet " * 2000)
    factorial = fibonacci = previous = 1
    data = b""
    with decimal.localcontext() as context:
        context.prec = 60
        context.rounding = decimal.ROUND_FLOOR
        root = decimal.Decimal(2)
        for r in range(rounds):
            piece = bytes(dice.choices(b"abcdefgh", k=2000)) + random.randbytes(50)
            data += piece
            for h in hashes:
                h.update(piece)
            for i, packer in enumerate(packers):
                packed[i] += packer.compress(piece)
            factorial *= r + 1
            for _ in range(300):
                fibonacci, previous = fibonacci + previous, fibonacci
            root = (root + 2 / root) / 2 + decimal.Decimal(r)
            word = next(words).group()
            pyheap.epoch()
            assert decimal.getcontext().prec == 60
            assert hashes[1].hexdigest() == hashlib.sha256(data).hexdigest()
            if r % 10 == 0:
                print(r, word, root, dice.random(), random.random(), f"{fibonacci % 10**20:x}")
    assert decimal.getcontext().prec == 28
    for i, (packer, unpack) in enumerate(zip(packers, (zlib, bz2, lzma))):
        packed[i] += packer.flush()
        assert unpack.decompress(packed[i]) == data
        print(unpack.__name__, len(packed[i]))
    print(*(h.hexdigest()[:16] for h in hashes))
    print(hashlib.sha256(b"%x" % factorial).hexdigest(), fibonacci.bit_length())


main()
