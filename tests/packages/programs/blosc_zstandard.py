# SPDX-License-Identifier: MIT
"""Blosc2 and zstandard: arrays compressed in memory and on disk by threads, streams of zstd in the
middle, with a dictionary.

live: rounds=40 epochs=2 needs=blosc2,zstandard
"""
import io
import os
import sys

import blosc2
import numpy as np
import pyheap
import zstandard


def main():
    rounds = int(sys.argv[1])
    blosc2.set_nthreads(2)
    samples = [b"line %d of %d\n" % (n, n * n) * 20 for n in range(300)]
    known = zstandard.train_dictionary(4096, samples)
    packed = io.BytesIO()
    writer = zstandard.ZstdCompressor(level=5, threads=2).stream_writer(packed, closefd=False)
    packer = zstandard.ZstdCompressor(dict_data=known)
    whole = zstandard.ZstdCompressor().compress(b"".join(samples) * (rounds // 100 + 1))
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(whole))
    array = blosc2.zeros((rounds, 1000), dtype="i8", urlpath="out.b2nd", mode="w",
                         chunks=(10, 1000))
    read = 0
    for r in range(rounds):
        text = samples[r % 300]
        writer.write(text)
        small = packer.compress(text)
        array[r] = np.arange(1000) * r
        pyheap.epoch("in the middle of the streams")
        assert zstandard.ZstdDecompressor(dict_data=known).decompress(small) == text
        assert array[r // 2, 10] == 10 * (r // 2)
        read += len(reader.read(500))
        writer.write(text[::-1])
        chunk = blosc2.pack_array2(np.full(50000, r))
        pyheap.epoch("chunks compressed by threads")
        assert blosc2.unpack_array2(chunk)[777] == r
        if r % 10 == 0:
            print(r, read, len(small))
    writer.close()
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed.getvalue()) == b"".join(
        samples[r % 300] + samples[r % 300][::-1] for r in range(rounds))
    assert int(blosc2.open("out.b2nd")[:].sum()) == 499500 * rounds * (rounds - 1) // 2
    os.unlink("out.b2nd")


main()
