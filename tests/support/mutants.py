"""Broken copies of honest pictures: bytes set, cut out, doubled, spliced from another file, and the end cut off."""

import functools

import numpy as np
from PIL import Image, ImageCms

from tests.support.hostile_pictures import png_chunk
from tests.support.pictures import encoded, scene

MAX_SIDE = 48


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Return small pictures of every format, layout and kind of metadata."""
    picture, frames = scene(2, MAX_SIDE, 32), [scene(seed, 24, 16) for seed in (3, 4)]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = picture.getexif()
    tags[0x0112] = 6
    moving = {"save_all": True, "append_images": frames[1:], "duration": 50}
    png = encoded(picture, "PNG", exif=tags, icc_profile=profile)
    return (
        encoded(picture, "JPEG", exif=tags, icc_profile=profile),
        encoded(picture, "JPEG", progressive=True),
        encoded(picture.convert("L"), "JPEG"),
        encoded(picture.convert("CMYK"), "JPEG"),
        png,
        png[:33] + png_chunk(b"zTXt", b"a\x00\x00x") + png[33:],
        encoded(picture.convert("P"), "PNG", transparency=0),
        encoded(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30)), "PNG"),
        encoded(frames[0], "PNG", **moving),
        encoded(picture, "WEBP", exif=tags.tobytes(), icc_profile=profile),
        encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        encoded(frames[0], "WEBP", **moving),
        encoded(picture, "GIF"),
        encoded(frames[0], "GIF", **moving),
    )


def mutant(number: int) -> bytes:
    """Return the mutant of a number; equal numbers give equal bytes."""
    rng = np.random.default_rng(number)
    data = bytearray(seeds()[number % len(seeds())])
    for _ in range(int(rng.integers(1, 9))):
        place = int(rng.integers(len(data)) * (1 if rng.random() < 0.5 else rng.random()))
        length = int(rng.integers(1, 40))
        kind = int(rng.integers(5))
        if kind <= 1:
            data[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, int(rng.integers(256))]))
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = data[place : place + length]
        else:
            other = seeds()[int(rng.integers(len(seeds())))]
            data[place : place + length] = other[place % len(other) :][:length]
        if not data:
            data = bytearray(b"\x00")
    return bytes(data[: max(1, int(len(data) * (1 if rng.random() < 0.7 else rng.random())))])
