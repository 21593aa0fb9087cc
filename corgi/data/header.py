"""What a body claims to be, read from its first bytes without decoding: format and size.

Pure Python over bytes in bounds: a 30,000 x 30,000 bomb is refused for the price of reading its header.
"""

from dataclasses import dataclass

from corgi.settings.data import DownloadSettings
from corgi.tables.schema import Reason

_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_KNOWN_OTHERS = (
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
)


@dataclass(frozen=True)
class Header:
    """A format by its Pillow name and the size the file claims, px."""

    format: str
    width: int
    height: int


@dataclass(frozen=True)
class Rejected:
    """A body that gives no picture; detail is a template without addresses, sizes or times."""

    reason: Reason
    detail: str = ""


def read_header(data: bytes) -> Header | Rejected:
    """Return the format and size a body claims."""
    format_name = sniff(data)
    if format_name is None:
        return Rejected(Reason.NOT_AN_IMAGE, _claim(data))
    reader = {"JPEG": _jpeg_size, "PNG": _png_size, "GIF": _gif_size, "WEBP": _webp_size}.get(format_name)
    if reader is None:
        return Rejected(Reason.FORMAT_NOT_ALLOWED, format_name)
    size = reader(data)
    if size is None or 0 in size:
        return Rejected(Reason.DECODE_FAILED, f"{format_name} header without a size")
    return Header(format_name, *size)


def check_header(data: bytes, settings: DownloadSettings) -> Header | Rejected:
    """Return the header of a body that may be decoded, or why it may not."""
    header = read_header(data)
    if isinstance(header, Rejected):
        return header
    if header.format not in settings.formats:
        return Rejected(Reason.FORMAT_NOT_ALLOWED, header.format)
    return check_size(header.width, header.height, settings) or header


def check_size(width: int, height: int, settings: DownloadSettings) -> Rejected | None:
    """Return why a picture of this size, px, is refused, or None."""
    if width * height > settings.max_pixels:
        return Rejected(Reason.TOO_MANY_PIXELS, "by its header")
    if max(width, height) > settings.max_aspect_ratio * min(width, height):
        return Rejected(Reason.ASPECT_RATIO, "longer side against shorter")
    if min(width, height) < settings.min_image_size:
        return Rejected(Reason.TOO_SMALL, "shorter side")
    return None


def sniff(data: bytes) -> str | None:
    """Return the Pillow name of a body's format, or None when it is no picture known here."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1"):
        return "HEIF"
    return next((name for magic, name in _KNOWN_OTHERS if data.startswith(magic)), None)


def _claim(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "empty body"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if start.startswith((b"<?xml", b"<svg")):
        return "XML or SVG"
    return "unknown first bytes"


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _gif_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 10:
        return None
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _JPEG_ALONE:
            place += 2
        elif marker in _JPEG_SIZES:
            return int.from_bytes(data[place + 7 : place + 9]), int.from_bytes(data[place + 5 : place + 7])
        elif marker in (0xD9, 0xDA):
            return None
        else:
            place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4]))
    return None
