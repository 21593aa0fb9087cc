"""Size, frames and layout of the web's image formats, read from the file's structure without decoding any pixel.

Pure Python with bounds checks. Every loop is bounded by MAX_PARTS or MAX_BLOCKS, so a file of only tiny parts takes
milliseconds; an offset outside the bytes counts as the end of the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

MAX_PARTS = 20_000
"""Number of segments or chunks above which a file counts as malformed."""
MAX_BLOCKS = 200_000
"""The same for the blocks of a GIF, which have at most 255 bytes."""
_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_ENDS = frozenset({0xD9, 0xDA})
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032
_JPEG_PIXELS_PER_BYTE = 1024


class MalformedError(Exception):
    """A file's structure is inconsistent; the message contains no numbers."""


@dataclass(frozen=True)
class FormatInfo:
    """The information in a file's headers.

    width and height in px; frames, 1 for a still image; is_plain: a JPEG or WebP with three or one channels of eight bits, without
    transparency, with one frame (PNG is left to Pillow, whose reader trusts no length before it has the bytes); max_pixels: the most
    px that its bytes can encode, None if the format sets no bound.
    """

    width: int
    height: int
    frames: int = 1
    is_plain: bool = False
    channels: int = 3
    max_pixels: int | None = None


Part = tuple[int | bytes, int, int]
"""A segment or chunk: its kind, and the offset and length of its content."""


def jpeg_segments(data: bytes) -> Iterator[Part]:
    """Yield (marker, offset, length) of each segment before the first scan.

    Bytes between segments are skipped, as in libjpeg.

    Raises:
        MalformedError: too many segments.

    """
    offset = 2
    for _ in range(MAX_PARTS):
        offset = data.find(b"\xff", offset)
        if offset < 0 or offset + 4 > len(data):
            return
        marker = data[offset + 1]
        if marker in _JPEG_ENDS:
            return
        if marker == 0xFF:
            offset += 1
        elif marker in _JPEG_ALONE:
            offset += 2
        else:
            length = max(2, int.from_bytes(data[offset + 2 : offset + 4]))
            yield marker, offset + 4, length - 2
            offset += 2 + length
    raise MalformedError("JPEG of too many segments")


def png_chunks(data: bytes) -> Iterator[Part]:
    """Yield (kind, offset, length) of each PNG chunk.

    Raises:
        MalformedError: too many chunks.

    """
    return _chunks(data, "PNG", 8, is_kind_first=False, order="big", trailer=lambda length: 4)


def riff_chunks(data: bytes) -> Iterator[Part]:
    """Yield (kind, offset, length) of each chunk of a WebP file.

    Raises:
        MalformedError: too many chunks.

    """
    return _chunks(data, "WEBP", 12, is_kind_first=True, order="little", trailer=lambda length: length & 1)


def _chunks(
    data: bytes,
    name: str,
    offset: int,
    is_kind_first: bool,
    order: Literal["big", "little"],
    trailer: Callable[[int], int],
) -> Iterator[Part]:
    """Yield the chunks from an offset on: kind and length, four bytes each, then the content and a trailer.

    `trailer` returns the number of bytes of checksum or padding after a content of `length` bytes.
    """
    for _ in range(MAX_PARTS):
        if offset + 8 > len(data):
            return
        first, second = data[offset : offset + 4], data[offset + 4 : offset + 8]
        kind, size = (first, second) if is_kind_first else (second, first)
        length = int.from_bytes(size, order)
        yield kind, offset + 8, length
        offset += 8 + length + trailer(length)
    raise MalformedError(f"{name} of too many chunks")


def _jpeg(data: bytes) -> FormatInfo | None:
    for marker, offset, length in jpeg_segments(data):
        if marker in _JPEG_SIZES and length >= 6 and offset + 6 <= len(data):
            channels = data[offset + 5]
            return FormatInfo(
                width=int.from_bytes(data[offset + 3 : offset + 5]),
                height=int.from_bytes(data[offset + 1 : offset + 3]),
                is_plain=data[offset] == 8 and channels in (1, 3),
                channels=channels,
                max_pixels=_JPEG_PIXELS_PER_BYTE * len(data),
            )
    return None


def _png(data: bytes) -> FormatInfo | None:
    if len(data) < 29 or data[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    frames = 1
    for kind, offset, _ in png_chunks(data):
        if kind == b"acTL":
            frames = max(1, int.from_bytes(data[offset : offset + 4]))
        elif kind == b"IDAT":
            break
    bits = depth * _PNG_CHANNELS.get(colour, 1)
    return FormatInfo(
        width,
        height,
        frames,
        channels=_PNG_CHANNELS.get(colour, 1),
        max_pixels=8 * _DEFLATE_RATIO * len(data) // max(1, bits),
    )


def _gif(data: bytes) -> FormatInfo | None:
    if len(data) < 13:
        return None
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    offset = 13 + _colour_table(data[10])
    frames = parts = 0
    while offset + 10 < len(data) and data[offset] in (0x21, 0x2C):
        if data[offset] == 0x2C:
            if not frames:  # a first frame may be larger than the screen, which is then enlarged
                width = max(width, _little(data, offset + 1, 2) + _little(data, offset + 5, 2))
                height = max(height, _little(data, offset + 3, 2) + _little(data, offset + 7, 2))
            frames += 1
            offset += 11 + _colour_table(data[offset + 9])
        else:
            offset += 2
        while offset < len(data) and data[offset]:
            offset += 1 + data[offset]
            parts += 1
        offset += 1
        parts += 1
        if parts > MAX_BLOCKS:
            raise MalformedError("GIF of too many blocks")
    return FormatInfo(width, height, max(1, frames))


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> FormatInfo | None:
    canvas: FormatInfo | None = None
    frames, is_animated, is_clear = 0, False, False
    for kind, offset, _ in riff_chunks(data):
        if kind == b"VP8X" and canvas is None and offset + 10 <= len(data):
            canvas = FormatInfo(_little(data, offset + 4, 3) + 1, _little(data, offset + 7, 3) + 1)
            is_animated, is_clear = bool(data[offset] & 0x02), bool(data[offset] & 0x10)
        elif kind == b"ANMF":
            frames += 1
        elif kind in (b"VP8 ", b"VP8L") and not is_animated:
            still = _webp_still(data, offset, kind == b"VP8L")
            if (
                canvas is not None
                and still is not None
                and (still.width, still.height) != (canvas.width, canvas.height)
            ):
                raise MalformedError("WEBP whose picture is not of its canvas's size")
            return still if still is None or not is_clear else FormatInfo(still.width, still.height)
    if canvas is None:
        return None
    return FormatInfo(canvas.width, canvas.height, max(1, frames))


def _webp_still(data: bytes, offset: int, is_lossless: bool) -> FormatInfo | None:
    if offset + 10 > len(data):
        return None
    if not is_lossless:
        if data[offset + 3 : offset + 6] != b"\x9d\x01\x2a":
            return None
        return FormatInfo(
            _little(data, offset + 6, 2) & 0x3FFF, _little(data, offset + 8, 2) & 0x3FFF, is_plain=True
        )
    if data[offset] != 0x2F:
        return None
    bits = _little(data, offset + 1, 4)
    return FormatInfo((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, is_plain=not bits >> 28 & 1)


def _little(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


READERS: dict[str, Callable[[bytes], FormatInfo | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
}
"""By Pillow's name of the format: a function that returns the information in the headers, or None if they contain no size."""
