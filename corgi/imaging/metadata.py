"""The two parts of an image's metadata that change its pixels: orientation and colour profile.

Everything else in the file, in particular texts of any size, is never read. A file whose metadata is designed to exhaust a reader
is rejected.
"""

import zlib
from dataclasses import dataclass

from corgi.imaging.formats import MalformedError, jpeg_segments, png_chunks, riff_chunks
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

MAX_PROFILE_BYTES = 4 * 2**20
MAX_PROFILE_TAGS = 200
MAX_DIRECTORIES = 16
_APP1, _APP2 = 0xE1, 0xE2
_EXIF, _ICC = b"Exif\x00\x00", b"ICC_PROFILE\x00"
_ORIENTATION = 0x0112
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT"})
"""PNG chunks that define the pixels; all others are texts, profiles, or hints that no reader here uses."""
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_FURTHER_DIRECTORIES = frozenset({0x8769, 0x8825, 0xA005, 0x014A})
"""EXIF tags whose value is the offset of another directory: Exif, GPS, interoperability, sub-images."""


@dataclass(frozen=True)
class Metadata:
    """EXIF orientation, 1 to 8, and the ICC profile, if any."""

    orientation: int = 1
    profile: bytes | None = None


class HostileError(Exception):
    """Metadata that no legitimate writer produces; the text contains no numbers."""


def read_metadata(data: bytes, format_name: str) -> Metadata | Rejection:
    """Return the metadata of a JPEG, PNG or WebP body; other formats give default metadata."""
    reader = {"JPEG": _of_jpeg, "PNG": _of_png, "WEBP": _of_webp}.get(format_name)
    if reader is None:
        return Metadata()
    try:
        exif, profile = reader(data)
        if profile:
            _check_profile(profile)
        return Metadata(orientation_of(exif) if exif else 1, profile or None)
    except HostileError as error:
        return Rejection(Reason.BAD_METADATA, str(error))
    except MalformedError as error:
        return Rejection(Reason.DECODE_FAILED, str(error))


def png_of_pixels_only(data: bytes) -> bytes:
    """Return a PNG with only the chunks that define its pixels.

    Pillow decompresses every text before it returns the image, and rejects a file with a text over 1 MiB. Chunks are copied
    unchanged, so a truncated or broken one stays so.

    Raises:
        MalformedError: too many chunks.

    """
    parts = [data[:8]]
    for kind, offset, length in png_chunks(data):
        if kind == b"IEND":
            parts.append(_PNG_END)
            break
        if kind in _PNG_PIXELS:
            parts.append(data[offset - 8 : offset + length + 4])
    return b"".join(parts)


def orientation_of(exif: bytes) -> int:
    """Return the orientation in a TIFF-shaped EXIF block; 1 if it has no valid one.

    Raises:
        HostileError: its directories loop or never end.

    """
    if exif[:2] not in (b"II", b"MM"):
        return 1
    order = "little" if exif[:2] == b"II" else "big"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(exif[offset : offset + size], order)

    orientation, seen = 1, set[int]()
    todo = [number(4, 4)]
    while todo:
        offset = todo.pop()
        if not 0 < offset < len(exif) - 2:
            continue
        if offset in seen or len(seen) >= MAX_DIRECTORIES:
            raise HostileError("EXIF directories that loop")
        is_first = not seen
        seen.add(offset)
        end = offset + 2 + 12 * number(offset, 2)
        for entry in range(offset + 2, min(end, len(exif) - 11), 12):
            tag = number(entry, 2)
            if tag == _ORIENTATION and is_first:
                orientation = number(entry + 8, 2)
            elif tag in _FURTHER_DIRECTORIES:
                todo.append(number(entry + 8, 4))
        if (
            is_first
        ):  # the offset of the thumbnail's directory; after other directories many writers leave garbage here
            todo.append(number(end, 4))
    return orientation if 1 <= orientation <= 8 else 1


def _of_jpeg(data: bytes) -> tuple[bytes | None, bytes | None]:
    exif: bytes | None = None
    parts: dict[int, bytes] = {}
    for marker, offset, length in jpeg_segments(data):
        if marker == _APP1 and exif is None and data.startswith(_EXIF, offset):
            exif = data[offset + len(_EXIF) : offset + length]
        elif marker == _APP2 and data.startswith(_ICC, offset) and length > len(_ICC) + 2:
            start = offset + len(_ICC)
            parts.setdefault(data[start], data[start + 2 : offset + length])
    if sum(map(len, parts.values())) > MAX_PROFILE_BYTES:
        raise HostileError("a colour profile larger than any")
    return exif, b"".join(parts[number] for number in sorted(parts)) or None


def _of_png(data: bytes) -> tuple[bytes | None, bytes | None]:
    exif = profile = None
    for kind, offset, length in png_chunks(data):
        if kind == b"eXIf" and exif is None:
            exif = data[offset : offset + length]
        elif kind == b"iCCP" and profile is None:
            _, _, packed = data[offset : offset + length].partition(b"\x00")
            profile = _unpacked(packed[1:])
    return exif, profile


def _of_webp(data: bytes) -> tuple[bytes | None, bytes | None]:
    exif = profile = None
    for kind, offset, length in riff_chunks(data):
        if kind == b"EXIF" and exif is None:
            exif = data[offset : offset + length].removeprefix(_EXIF)
        elif kind == b"ICCP" and profile is None:
            profile = data[offset : offset + length]
    return exif, profile


def _unpacked(packed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed, MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    if len(profile) > MAX_PROFILE_BYTES:
        raise HostileError("a colour profile larger than any")
    return profile


def _check_profile(profile: bytes) -> None:
    if len(profile) > MAX_PROFILE_BYTES:
        raise HostileError("a colour profile larger than any")
    if profile[36:40] == b"acsp" and int.from_bytes(profile[128:132]) > MAX_PROFILE_TAGS:
        raise HostileError("a colour profile of too many tags")
