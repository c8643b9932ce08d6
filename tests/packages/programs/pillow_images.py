# SPDX-License-Identifier: MIT
"""Pillow: images half read (an incremental parser), an animation between two frames, filters,
JPEG and PNG.

live: rounds=40 needs=PIL
"""
import hashlib
import io
import sys

import pyheap
from PIL import Image, ImageDraw, ImageFile, ImageFilter


def picture(n):
    image = Image.new("RGB", (120, 90), (n * 7 % 256, 40, 90))
    ImageDraw.Draw(image).ellipse((10, 10, 40 + n % 40, 60), fill=(250, n % 256, 0))
    return image


def packed(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def main():
    rounds = int(sys.argv[1])
    frames = [picture(n * 20) for n in range(7)]
    gif = Image.open(io.BytesIO(packed(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert gif.n_frames == 7
    canvas = picture(0)
    for r in range(rounds):
        data = packed(picture(r), "PNG")
        half = ImageFile.Parser()
        half.feed(data[:len(data) // 2])
        gif.seek(r % 7)
        lazy = Image.open(io.BytesIO(packed(picture(r), "JPEG", quality=90)))
        pyheap.epoch()
        half.feed(data[len(data) // 2:])
        assert half.close().tobytes() == picture(r).tobytes()
        assert lazy.size == (120, 90) and len(lazy.tobytes()) == 120 * 90 * 3
        canvas = Image.blend(canvas, gif.convert("RGB"), 0.25).filter(ImageFilter.BoxBlur(1))
        canvas = Image.blend(canvas, lazy.resize((120, 90)), 0.1)
        if r % 10 == 0:
            print(r, hashlib.sha256(canvas.tobytes()).hexdigest()[:16])
    canvas.save("last.png")


main()
