# SPDX-License-Identifier: MIT
"""msgpack and orjson: an unpacker fed in pieces, packers in C, Rust's caches.

live: rounds=40 needs=msgpack,orjson
"""
import sys

import msgpack
import orjson
import pyheap


def main():
    rounds = int(sys.argv[1])
    packer, unpacker = msgpack.Packer(), msgpack.Unpacker(raw=False)
    for r in range(rounds):
        value = {"r": r, "list": list(range(r % 50)), "words": [f"word {n}" for n in range(500)]}
        packed = packer.pack(value)
        unpacker.feed(packed[:len(packed) // 2])
        assert next(unpacker, None) is None
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        pyheap.epoch()
        unpacker.feed(packed[len(packed) // 2:])
        assert next(unpacker) == value == orjson.loads(text)
        if r % 10 == 0:
            print(r, len(packed), len(text))


main()
