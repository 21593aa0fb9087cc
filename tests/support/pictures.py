"""Pictures made from a seed, honest and hostile."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image


def scene(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Return a smooth RGB picture of a seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, format_name: str = "JPEG", **options: object) -> bytes:
    """Return a picture's encoding."""
    out = io.BytesIO()
    picture.save(out, format_name, **options)
    return out.getvalue()


@functools.cache
def png_bomb(side: int) -> bytes:
    """Return a small valid PNG of `side` x `side` grey pixels, all zero."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    compressor = zlib.compressobj(9)
    row = bytes(side + 1)
    rows = b"".join([*(compressor.compress(row) for _ in range(side)), compressor.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_lie(width: int, height: int) -> bytes:
    """Return a small JPEG whose header claims another size."""
    data = bytearray(encoded(scene(0)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)
