"""Formats by their first bytes: known ones that may not be decoded say so, and only Pillow judges what few lists hold."""

import struct

import pytest
from PIL import Image

from corgi.imaging.decode import StoredImage, decode
from corgi.imaging.header import check_header, sniff
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.pictures import encoded, scene

FURTHER = DownloadSettings(formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"), image_size=32)


def ftyp(*brands: bytes) -> bytes:
    """Return the first box of an ISO file: its major brand, a version, the compatible brands."""
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(body) + 4) + body + bytes(64)


OTHERS = {
    "jxl": (b"\xff\x0a" + bytes(64), "JXL"),
    "jxl in a box": (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(64), "JXL"),
    "jp2": (encoded(scene(1), "JPEG2000"), "JPEG2000"),
    "j2k": (encoded(scene(1), "JPEG2000", no_jp2=True), "JPEG2000"),
    "ppm": (encoded(scene(1), "PPM"), "PPM"),
    "pgm": (encoded(scene(1).convert("L"), "PPM"), "PPM"),
    "pbm": (encoded(scene(1).convert("1"), "PPM"), "PPM"),
    "ppm with a comment": (b"P3\n# by hand\n# again\n2 1 255\n0 0 0 9 9 9\n", "PPM"),
    "heic": (ftyp(b"heic", b"mif1", b"heic"), "HEIF"),
    "heic burst": (ftyp(b"hevc", b"msf1", b"hevc"), "HEIF"),
    "heif": (ftyp(b"mif1", b"heic"), "HEIF"),
    "avif": (encoded(scene(1), "AVIF"), "AVIF"),
    "avif by a further brand": (ftyp(b"mif1", b"miaf", b"avif"), "AVIF"),
    "bmp": (encoded(scene(1), "BMP"), "BMP"),
    "tiff": (encoded(scene(1), "TIFF"), "TIFF"),
    "ico": (encoded(scene(1), "ICO"), "ICO"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_picture_of_a_format_that_may_not_be_decoded_says_so(name):
    data, format_name = OTHERS[name]
    expected = Rejection(Reason.FORMAT_NOT_ALLOWED, format_name)
    assert check_header(data, DownloadSettings()) == expected
    assert decode(data, DownloadSettings()) == expected


@pytest.mark.parametrize(
    "data",
    [ftyp(b"isom", b"mp42"), ftyp(b"qt  "), b"P", b"P3", b"P6 is a person", b"P1\n\nwords", b"\xff", b"ftyp"],
)
def test_what_only_begins_like_a_picture_is_none(data):
    assert sniff(data) is None


@pytest.mark.parametrize("format_name", ["BMP", "TIFF", "AVIF"])
def test_further_formats_are_decoded_when_they_are_allowed(format_name):
    found = decode(encoded(scene(1), format_name), FURTHER)
    assert isinstance(found, StoredImage)
    assert (found.format, found.original_width, found.original_height) == (format_name, 96, 64)
    assert found.animated is False


@pytest.mark.parametrize("format_name", ["BMP", "TIFF", "AVIF"])
def test_the_parent_leaves_further_formats_to_the_child(format_name, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *rest, **options: pytest.fail("the parent opened a picture"))
    assert check_header(encoded(scene(1), format_name), FURTHER) is None


@pytest.mark.parametrize("format_name", ["BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ({"max_pixels": 6143}, Reason.TOO_MANY_PIXELS),
        ({"min_image_size": 65}, Reason.TOO_SMALL),
        ({"max_aspect_ratio": 1.4}, Reason.ASPECT_RATIO),
    ],
)
def test_the_bounds_hold_for_further_formats(format_name, bound, reason):
    found = decode(encoded(scene(1), format_name), FURTHER.model_copy(update=bound))
    assert isinstance(found, Rejection)
    assert found.reason == reason


@pytest.mark.parametrize("format_name", ["TIFF", "AVIF"])
def test_frames_of_further_formats_are_counted(format_name):
    data = encoded(scene(0), format_name, save_all=True, append_images=[scene(n) for n in range(1, 4)])
    found = decode(data, FURTHER)
    assert isinstance(found, StoredImage)
    assert found.animated is True
    few = decode(data, FURTHER.model_copy(update={"max_frames": 3}))
    assert few == Rejection(Reason.TOO_MANY_FRAMES, "by its header")


@pytest.mark.parametrize("format_name", ["BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("length", [2, 12, 30, 200])
def test_a_cut_picture_of_a_further_format_is_a_reason(format_name, length):
    found = decode(encoded(scene(1), format_name)[:length], FURTHER)
    assert isinstance(found, Rejection)


def test_a_bmp_that_claims_too_much_is_refused_unread():
    data = bytearray(encoded(scene(1), "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    assert decode(bytes(data), FURTHER) == Rejection(Reason.TOO_MANY_PIXELS, "by its header")
