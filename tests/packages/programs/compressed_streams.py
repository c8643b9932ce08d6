# SPDX-License-Identifier: MIT
"""gzip, bz2, lzma and zip files open for writing and for reading, half-way; zlib with a copy.

live: rounds=40
"""
import bz2
import gzip
import lzma
import os
import sys
import zipfile
import zlib

import pyheap

OPENERS = {"gz": lambda name, mode: gzip.GzipFile(name, mode, mtime=0), "bz2": bz2.BZ2File,
           "xz": lzma.LZMAFile}


def piece(r):
    return b"".join(b"line %d %d\n" % (r, i * i) for i in range(200))


def main():
    rounds = int(sys.argv[1])
    text = b"".join(piece(r) for r in range(rounds))
    readers = {}
    for kind, opener in OPENERS.items():
        with opener(f"in.{kind}", "wb") as file:
            file.write(text)
        readers[kind] = opener(f"in.{kind}", "rb")
    writers = {kind: opener(f"out.{kind}", "wb") for kind, opener in OPENERS.items()}
    archive = zipfile.ZipFile("out.zip", "w", zipfile.ZIP_DEFLATED)
    member = archive.open(zipfile.ZipInfo("member"), "w")
    packer, unpacker = zlib.compressobj(6), zlib.decompressobj()
    stream = zlib.compress(text)
    position = 0
    for r in range(rounds):
        now = piece(r)
        for writer in [*writers.values(), member]:
            writer.write(now[:1000])
        heads = {kind: reader.read(len(now) // 2) for kind, reader in readers.items()}
        pyheap.epoch()
        for writer in [*writers.values(), member]:
            writer.write(now[1000:])
        for kind, reader in readers.items():
            assert heads[kind] + reader.read(len(now) - len(heads[kind])) == now, kind
        packer.compress(now)
        trial = packer.copy()
        got = unpacker.decompress(stream[position:position + 300], 5000)
        position += 300 - len(unpacker.unconsumed_tail)
        if r % 10 == 0:
            print(r, len(trial.flush()), len(got), zlib.crc32(got))
    for writer in [*writers.values(), member, archive]:
        writer.close()
    for kind, opener in OPENERS.items():
        with opener(f"out.{kind}", "rb") as file:
            assert file.read() == text
        os.unlink(f"in.{kind}")
    assert zipfile.ZipFile("out.zip").read("member") == text


main()
