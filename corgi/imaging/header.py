"""The header of a body, checked before any decoding: format, size, frames.

A decompression bomb of 30,000 x 30,000 px is rejected at the cost of reading its header.
"""

import re
from dataclasses import dataclass

from corgi.imaging.formats import READERS, MalformedError
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

READ_BY_PILLOW = frozenset({"BMP", "TIFF", "AVIF"})
"""Formats whose headers only Pillow reads, in the bounded child processes."""
_MAGICS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\xff\x0a", "JXL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
)
"""First bytes and the format that they identify, with Pillow's name if it has one."""
_PPM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s|P[Ff]\s+\d+\s|P7\nWIDTH ")
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
)
_MAX_BRANDS_BYTES = 1024


@dataclass(frozen=True)
class Header:
    """A format by its Pillow name, the size given by the header, px, the number of frames, and whether the layout is the common one.

    is_plain: a JPEG or WebP of one frame, eight bits, RGB or grey, without transparency; channels are those of the file.
    """

    format: str
    width: int
    height: int
    frames: int = 1
    is_plain: bool = False
    channels: int = 3


def read_header(data: bytes) -> Header | Rejection:
    """Return the header of a body, or the rejection if it is invalid."""
    format_name = sniff(data)
    if format_name is None:
        return Rejection(Reason.NOT_AN_IMAGE, _content_of(data))
    if format_name not in READERS:
        return Rejection(Reason.FORMAT_NOT_ALLOWED, format_name)
    try:
        info = READERS[format_name](data)
    except MalformedError as error:
        return Rejection(Reason.DECODE_FAILED, str(error))
    if info is None or info.width <= 0 or info.height <= 0:
        return Rejection(Reason.DECODE_FAILED, f"{format_name} header without a size")
    if info.max_pixels is not None and info.width * info.height > info.max_pixels:
        return Rejection(Reason.TOO_MANY_PIXELS, "more than its bytes can hold")
    return Header(format_name, info.width, info.height, info.frames, info.is_plain, info.channels)


def check_header(data: bytes, settings: DownloadSettings) -> Header | Rejection | None:
    """Return the header of a body that may be decoded, or the rejection; None if only Pillow can read it."""
    format_name = sniff(data)
    if format_name is not None and format_name not in settings.formats:
        return Rejection(Reason.FORMAT_NOT_ALLOWED, format_name)
    if format_name in READ_BY_PILLOW:
        return None
    header = read_header(data)
    return header if isinstance(header, Rejection) else check_limits(header, settings)


def check_limits(header: Header, settings: DownloadSettings) -> Header | Rejection:
    """Return the header, or a rejection because of its size or number of frames."""
    if header.frames > settings.max_frames:
        return Rejection(Reason.TOO_MANY_FRAMES, "by its header")
    return check_size(header.width, header.height, settings) or header


def check_size(width: int, height: int, settings: DownloadSettings) -> Rejection | None:
    """Return why an image of this size, px, is rejected, or None."""
    if width * height > settings.max_pixels:
        return Rejection(Reason.TOO_MANY_PIXELS, "by its header")
    if max(width, height) > settings.max_aspect_ratio * min(width, height):
        return Rejection(Reason.ASPECT_RATIO, "longer side against shorter")
    if min(width, height) < settings.min_image_size:
        return Rejection(Reason.TOO_SMALL, "shorter side")
    return None


def sniff(data: bytes) -> str | None:
    """Return the format of a body, with Pillow's name if it has one, or None if it is not a known image format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    if _PPM.match(data[:512]):
        return "PPM"
    return next((name for magic, name in _MAGICS if data.startswith(magic)), None)


def _of_brands(data: bytes) -> str | None:
    """Return AVIF or HEIF by the brands of an ISO file; a general brand such as mif1 only decides if there is no other."""
    end = min(int.from_bytes(data[:4]), _MAX_BRANDS_BYTES)
    brands = {data[offset : offset + 4] for offset in (8, *range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def _content_of(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "empty body"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if start.startswith((b"<?xml", b"<svg")):
        return "XML or SVG"
    return "unknown first bytes"
