"""One body to one stored picture: the header first, then upright RGB without stowaways, and no body that raises."""

import hashlib
import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from corgi.imaging.decode import StoredImage, decode, decode_stored, phash_of, target_sizes, template
from corgi.imaging.header import Header, check_header, read_header
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.pictures import encoded, jpeg_lie, png_bomb, scene

PLAIN = DownloadSettings(resize_mode="no", encode_format="png")
SMALL = DownloadSettings(image_size=32)


def decoded(data: bytes, options: DownloadSettings = PLAIN) -> StoredImage:
    found = decode(data, options)
    assert isinstance(found, StoredImage), found
    return found


def pixels(found: StoredImage) -> np.ndarray:
    return np.asarray(decode_stored(found.image)).astype(int)


def rejected(data: bytes, options: DownloadSettings = PLAIN) -> Reason:
    found = decode(data, options)
    assert isinstance(found, Rejection), found
    return found.reason


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
    ],
)
def test_the_header_tells_format_and_size(format_name: str, options: dict[str, object]) -> None:
    data = encoded(scene(1, 90, 50), format_name, **options)
    header = read_header(data)
    assert isinstance(header, Header)
    assert (header.format, header.width, header.height, header.frames) == (format_name, 90, 50, 1)
    found = decoded(data)
    assert (found.width, found.height, found.original_width, found.original_height, found.format) == (
        90,
        50,
        90,
        50,
        format_name,
    )


def test_an_animated_webp_and_a_gif_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
    for format_name in ("GIF", "WEBP", "PNG"):
        data = encoded(
            frames[0], format_name, save_all=True, append_images=frames[1:], duration=50, lossless=True
        )
        red, _, blue = pixels(decoded(data)).reshape(-1, 3).mean(0)
        assert (red > 240, blue < 15) == (True, True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"<!DOCTYPE html><html></html>", Reason.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.NOT_AN_IMAGE),
        (b"\x00" * 100, Reason.NOT_AN_IMAGE),
        (b"BM" + b"\x00" * 100, Reason.FORMAT_NOT_ALLOWED),
        (b"\x00\x00\x00\x20ftypavif" + b"\x00" * 50, Reason.FORMAT_NOT_ALLOWED),
        (b"\xff\xd8\xff\xe0", Reason.DECODE_FAILED),
        (b"\x89PNG\r\n\x1a\n", Reason.DECODE_FAILED),
        (b"GIF89a", Reason.DECODE_FAILED),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X", Reason.DECODE_FAILED),
        (encoded(scene(1, 400, 300))[:3000], Reason.DECODE_FAILED),
        (encoded(scene(1, 400, 300), "PNG")[:3000], Reason.DECODE_FAILED),
    ],
)
def test_what_is_no_whole_picture_is_rejected(data: bytes, reason: Reason) -> None:
    assert rejected(data) == reason


@pytest.mark.parametrize("data", [png_bomb(9_000), jpeg_lie(60_000, 60_000)])
def test_bombs_are_refused_unread(data: bytes) -> None:
    found = check_header(data, PLAIN)
    assert isinstance(found, Rejection)
    assert found.reason == Reason.TOO_MANY_PIXELS
    head = check_header(data[:256], PLAIN)
    assert isinstance(head, Rejection)
    assert head.reason == Reason.TOO_MANY_PIXELS


def test_limits_are_inclusive_and_named() -> None:
    data = encoded(scene(1, 100, 50))
    assert isinstance(
        check_header(data, DownloadSettings(max_pixels=5000, max_aspect_ratio=2, min_image_size=50)), Header
    )
    assert rejected(data, DownloadSettings(max_pixels=4999)) == Reason.TOO_MANY_PIXELS
    assert rejected(data, DownloadSettings(max_aspect_ratio=1.99)) == Reason.ASPECT_RATIO
    assert rejected(data, DownloadSettings(min_image_size=51)) == Reason.TOO_SMALL
    assert rejected(data, DownloadSettings(formats=("PNG",))) == Reason.FORMAT_NOT_ALLOWED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    picture = scene(3, 40, 24)
    tags = picture.getexif()
    tags[0x0112] = orientation
    data = encoded(picture, "PNG", exif=tags)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    found = decoded(data)
    np.testing.assert_array_equal(pixels(found), np.asarray(expected))
    assert (found.original_width, found.original_height) == expected.size
    turned = decoded(encoded(picture, "JPEG", exif=tags), DownloadSettings(image_size=16))
    assert (turned.width > turned.height) == (expected.width > expected.height)


def test_alpha_lies_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0] * 256)
    grey = Image.new("LA", (8, 8), (0, 0))
    assert (pixels(decoded(encoded(clear, "PNG"))) == 255).all()
    assert np.abs(pixels(decoded(encoded(half, "PNG"))) - [255, 127, 127]).max() <= 1
    assert (pixels(decoded(encoded(palette, "PNG", transparency=0))) == 255).all()
    assert (pixels(decoded(encoded(grey, "PNG"))) == 255).all()


def test_every_mode_becomes_rgb() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    deep = pixels(decoded(encoded(Image.fromarray(ramp), "PNG")))
    np.testing.assert_array_equal(deep[..., 0], ramp >> 8)
    for mode, format_name in [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("L", "PNG"),
        ("RGB", "PNG"),
    ]:
        source = Image.new("RGB", (16, 16), "white").convert(mode)
        assert np.abs(pixels(decoded(encoded(source, format_name))) - 255).max() <= 2, mode


def test_profiles_are_applied_and_broken_ones_ignored() -> None:
    picture = scene(5)
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = pixels(decoded(encoded(picture, "PNG")))
    assert np.abs(pixels(decoded(encoded(picture, "PNG", icc_profile=srgb))) - plain).max() <= 2
    for profile in (lab_like, b"no profile at all", srgb[:200]):
        assert decoded(encoded(picture, "PNG", icc_profile=profile)).width == picture.width


@pytest.mark.parametrize(
    ("mode", "size", "inner", "final"),
    [
        ("keep_ratio", (640, 480), (341, 256), (341, 256)),
        ("keep_ratio_largest", (640, 480), (256, 192), (256, 192)),
        ("center_crop", (480, 640), (256, 341), (256, 256)),
        ("border", (640, 480), (256, 192), (256, 256)),
        ("no", (640, 480), (640, 480), (640, 480)),
        ("keep_ratio", (10, 20), (256, 512), (256, 512)),
        ("keep_ratio_largest", (5000, 1), (256, 1), (256, 1)),
    ],
)
def test_resize_modes_are_img2datasets(
    mode: str, size: tuple[int, int], inner: tuple[int, int], final: tuple[int, int]
) -> None:
    assert target_sizes(size, mode, 256) == (inner, final)
    if max(size) < 1000:
        options = DownloadSettings.model_validate({"resize_mode": mode, "image_size": 256})
        found = decoded(encoded(scene(1, *size)), options)
        assert (found.width, found.height) == decode_stored(found.image).size == final


def test_a_border_is_white_and_centred() -> None:
    found = decoded(
        encoded(Image.new("RGB", (64, 32)), "PNG"),
        DownloadSettings(resize_mode="border", image_size=64, encode_format="png"),
    )
    rows = pixels(found).mean((1, 2))
    np.testing.assert_array_equal(rows, [255] * 16 + [0] * 32 + [255] * 16)


@pytest.mark.parametrize(
    ("encode_format", "mime", "name"),
    [("jpg", "image/jpeg", "JPEG"), ("png", "image/png", "PNG"), ("webp", "image/webp", "WEBP")],
)
def test_what_is_stored_carries_no_stowaways(
    encode_format: str, mime: str, name: str, promise: Callable[[int, str], None]
) -> None:
    secret = b"SECRET-STOWAWAY"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", secret.decode())
    text.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta>{secret.decode()}</x:xmpmeta>")
    tags = Image.Exif()
    tags[0x010E] = secret.decode()
    tags.get_ifd(0x8825)[29] = secret.decode()  # GPS date, which holds any text
    tags.get_ifd(0x8769)[0x9286] = secret  # user comment
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + secret
    thumbnail = encoded(scene(2, 16, 12), "JPEG", comment=secret)
    jpeg = encoded(scene(1), "JPEG", comment=secret, exif=tags, icc_profile=profile, xmp=secret)
    preview = b"\xff\xec" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    bodies = [
        encoded(scene(1), "PNG", pnginfo=text, exif=tags, icc_profile=profile) + secret,
        jpeg + secret,
        jpeg[:2] + preview + jpeg[2:],
        encoded(scene(1), "WEBP", exif=tags.tobytes(), icc_profile=profile, xmp=secret) + secret,
        encoded(scene(1), "GIF", comment=secret) + secret,
    ]
    for body in bodies:
        found = decoded(
            body, DownloadSettings.model_validate({"image_size": 48, "encode_format": encode_format})
        )
        assert secret in body
        assert secret not in found.image
        with Image.open(io.BytesIO(found.image)) as stored:
            assert (stored.format, found.mime) == (name, mime)
            assert not stored.getexif()
            assert not {"icc_profile", "comment", "exif", "xmp", "Comment"} & set(stored.info)
        assert found.sha256 == hashlib.sha256(body).hexdigest()
    promise(
        26,
        f"{name}: 0 stowaways in {len(bodies)} stuffed bodies (EXIF, GPS, ICC, XMP, comments, thumbnail, tail)",
    )


def test_the_perceptual_hash_survives_size_and_compression() -> None:
    near = [
        int(decoded(encoded(scene(7, *size), quality=quality), SMALL).phash, 16)
        for size, quality in [((640, 480), 90), ((320, 240), 60)]
    ]
    far = int(decoded(encoded(scene(8, 640, 480)), SMALL).phash, 16)
    assert (near[0] ^ near[1]).bit_count() <= 6
    assert (near[0] ^ far).bit_count() > 12
    assert len(phash_of(scene(1))) == 16


def test_equal_bytes_give_equal_pictures() -> None:
    body = encoded(scene(9, 333, 222))
    assert decode(body, SMALL) == decode(body, SMALL)


@settings(max_examples=300)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    st.floats(0.2, 1),
)
def test_no_mutant_raises(format_name: str, flips: list[tuple[float, int]], share: float) -> None:
    data = bytearray(encoded(scene(2, 40, 30), format_name))
    for place, value in flips:
        data[min(len(data) - 1, int(place * len(data)))] = value
    found = decode(
        bytes(data[: max(1, int(share * len(data)))]), DownloadSettings(image_size=16, max_pixels=100_000)
    )
    assert isinstance(found, (StoredImage, Rejection))
    if isinstance(found, Rejection):
        assert not any(letter.isdigit() for letter in found.detail)


@settings(max_examples=200)
@given(
    st.sampled_from(
        [
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"RIFF\x00\x00\x00\x00WEBPVP8L",
            b"RIFF\x00\x00\x00\x00WEBPVP8 ",
            b"",
        ]
    ),
    st.binary(max_size=200),
)
def test_no_header_raises(magic: bytes, rest: bytes) -> None:
    assert isinstance(read_header(magic + rest), (Header, Rejection))


def test_details_hold_no_addresses_and_no_numbers() -> None:
    error = OSError("cannot identify image file <_io.BytesIO object at 0x7f00aa> at 12 bytes")
    assert template(error) == "OSError: cannot identify image file body at N bytes"
