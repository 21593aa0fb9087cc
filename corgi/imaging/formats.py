"""Size, frames and layout of the web's picture formats, read from the file's structure without decoding any pixel.

Pure Python over bytes in bounds. Every walk is bounded by MAX_PARTS, so that a file made of nothing but tiny parts costs
milliseconds; what lies outside the bytes reads as the end of the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_PARTS = 20_000
"""Segments or chunks that are walked over before a file counts as malformed."""
MAX_BLOCKS = 200_000
"""The same for the blocks of a GIF, which hold 255 bytes at most."""
_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_ENDS = frozenset({0xD9, 0xDA})
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032
_JPEG_PIXELS_PER_BYTE = 1024


class MalformedError(Exception):
    """A file's structure contradicts itself; the text holds no numbers."""


@dataclass(frozen=True)
class Claim:
    """What a file claims.

    width and height in px; frames, 1 for a still picture; is_plain: a JPEG or WebP of three or one channels of eight
    bits, nothing transparent, one frame (PNG is left to Pillow, whose reader believes no length before it has the bytes); holds_pixels: px that its bytes could hold at most, None where the format sets no such bound.
    """

    width: int
    height: int
    frames: int = 1
    is_plain: bool = False
    channels: int = 3
    holds_pixels: int | None = None


Part = tuple[int | bytes, int, int]
"""A segment or chunk: its kind, the place of its content and the length of that."""


def jpeg_segments(data: bytes) -> Iterator[Part]:
    """Yield (marker, place, length) of each segment before the first scan.

    Bytes between segments are passed over, as libjpeg does.

    Raises:
        MalformedError: too many segments.

    """
    place = 2
    for _ in range(MAX_PARTS):
        place = data.find(b"\xff", place)
        if place < 0 or place + 4 > len(data):
            return
        marker = data[place + 1]
        if marker in _JPEG_ENDS:
            return
        if marker == 0xFF:
            place += 1
        elif marker in _JPEG_ALONE:
            place += 2
        else:
            length = max(2, int.from_bytes(data[place + 2 : place + 4]))
            yield marker, place + 4, length - 2
            place += 2 + length
    raise MalformedError("JPEG of too many segments")


def png_chunks(data: bytes) -> Iterator[Part]:
    """Yield (kind, place, length) of each PNG chunk.

    Raises:
        MalformedError: too many chunks.

    """
    place = 8
    for _ in range(MAX_PARTS):
        if place + 8 > len(data):
            return
        length = int.from_bytes(data[place : place + 4])
        yield data[place + 4 : place + 8], place + 8, length
        place += 12 + length
    raise MalformedError("PNG of too many chunks")


def riff_chunks(data: bytes) -> Iterator[Part]:
    """Yield (kind, place, length) of each chunk of a WebP file.

    Raises:
        MalformedError: too many chunks.

    """
    place = 12
    for _ in range(MAX_PARTS):
        if place + 8 > len(data):
            return
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 4], place + 8, length
        place += 8 + length + (length & 1)
    raise MalformedError("WEBP of too many chunks")


def _jpeg(data: bytes) -> Claim | None:
    for marker, place, length in jpeg_segments(data):
        if marker in _JPEG_SIZES and length >= 6 and place + 6 <= len(data):
            channels = data[place + 5]
            return Claim(
                width=int.from_bytes(data[place + 3 : place + 5]),
                height=int.from_bytes(data[place + 1 : place + 3]),
                is_plain=data[place] == 8 and channels in (1, 3),
                channels=channels,
                holds_pixels=_JPEG_PIXELS_PER_BYTE * len(data),
            )
    return None


def _png(data: bytes) -> Claim | None:
    if len(data) < 29 or data[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    frames = 1
    for kind, place, _ in png_chunks(data):
        if kind == b"acTL":
            frames = max(1, int.from_bytes(data[place : place + 4]))
        elif kind == b"IDAT":
            break
    bits = depth * _PNG_CHANNELS.get(colour, 1)
    return Claim(
        width,
        height,
        frames,
        channels=_PNG_CHANNELS.get(colour, 1),
        holds_pixels=8 * _DEFLATE_RATIO * len(data) // max(1, bits),
    )


def _gif(data: bytes) -> Claim | None:
    if len(data) < 13:
        return None
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    place = 13 + _colour_table(data[10])
    frames = parts = 0
    while place + 10 < len(data) and data[place] in (0x21, 0x2C):
        if data[place] == 0x2C:
            if not frames:  # a first frame may be larger than the screen, and then makes it grow
                width = max(width, _little(data, place + 1, 2) + _little(data, place + 5, 2))
                height = max(height, _little(data, place + 3, 2) + _little(data, place + 7, 2))
            frames += 1
            place += 11 + _colour_table(data[place + 9])
        else:
            place += 2
        while place < len(data) and data[place]:
            place += 1 + data[place]
            parts += 1
        place += 1
        parts += 1
        if parts > MAX_BLOCKS:
            raise MalformedError("GIF of too many blocks")
    return Claim(width, height, max(1, frames))


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> Claim | None:
    canvas: Claim | None = None
    frames, is_animated, is_clear = 0, False, False
    for kind, place, _ in riff_chunks(data):
        if kind == b"VP8X" and canvas is None and place + 10 <= len(data):
            canvas = Claim(_little(data, place + 4, 3) + 1, _little(data, place + 7, 3) + 1)
            is_animated, is_clear = bool(data[place] & 0x02), bool(data[place] & 0x10)
        elif kind == b"ANMF":
            frames += 1
        elif kind in (b"VP8 ", b"VP8L") and not is_animated:
            still = _webp_still(data, place, kind == b"VP8L")
            if (
                canvas is not None
                and still is not None
                and (still.width, still.height) != (canvas.width, canvas.height)
            ):
                raise MalformedError("WEBP whose picture is not of its canvas's size")
            return still if still is None or not is_clear else Claim(still.width, still.height)
    if canvas is None:
        return None
    return Claim(canvas.width, canvas.height, max(1, frames))


def _webp_still(data: bytes, place: int, is_lossless: bool) -> Claim | None:
    if place + 10 > len(data):
        return None
    if not is_lossless:
        if data[place + 3 : place + 6] != b"\x9d\x01\x2a":
            return None
        return Claim(
            _little(data, place + 6, 2) & 0x3FFF, _little(data, place + 8, 2) & 0x3FFF, is_plain=True
        )
    if data[place] != 0x2F:
        return None
    bits = _little(data, place + 1, 4)
    return Claim((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, is_plain=not bits >> 28 & 1)


def _little(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


READERS: dict[str, Callable[[bytes], Claim | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
}
"""By Pillow's name of the format: what its bytes claim, None when there is no size."""
