"""One body to one stored picture: upright, RGB, sRGB, resized, re-encoded without metadata.

`decode` meets hostile bytes and runs in the bounded children of `decoding.py`; `decode_stored` opens our own encodings only.
"""

import hashlib
import io
import re
import warnings
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image, ImageCms

from corgi.data.header import Rejected, check_header, check_size
from corgi.settings.data import DownloadSettings
from corgi.tables.schema import Reason

STORED_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
STORED_MIMES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
OUT_OF_MEMORY = Rejected(Reason.DECODE_FAILED, "more memory than a decoder may take")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255)
_DRAFT_MARGIN = 1.5  # a JPEG is decoded at the smallest scale not below this multiple of the wanted size

Size = tuple[int, int]


@dataclass(frozen=True)
class Decoded:
    """A stored picture.

    image is the new encoding and mime its type; width and height are its size, original_width and original_height those of
    the upright original, px; sha256 is that of the raw bytes, phash that of the uncropped picture; format is the original's.
    """

    image: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    phash: str
    mime: str
    format: str


def decode(data: bytes, settings: DownloadSettings) -> Decoded | Rejected:
    """Return the stored picture made of a body, or why there is none; no input raises."""
    header = check_header(data, settings)
    if isinstance(header, Rejected):
        return header
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data, header.format, settings)
    except MemoryError:
        return OUT_OF_MEMORY
    except (
        Exception
    ) as error:  # a decoder fed with hostile bytes raises anything: each is this one row's reason
        return Rejected(Reason.DECODE_FAILED, template(error))


def decode_stored(data: bytes) -> Image.Image:
    """Return one of our own stored encodings as an RGB picture."""
    with Image.open(io.BytesIO(data), formats=tuple(STORED_FORMATS.values())) as picture:
        return picture.convert("RGB")


def sha256_of(data: bytes) -> str:
    """Return the sha256 of raw bytes, lower hex."""
    return hashlib.sha256(data).hexdigest()


def phash_of(picture: Image.Image) -> str:
    """Return the 64-bit perceptual hash of a picture, 16 hex digits."""
    return str(imagehash.phash(picture))


def template(error: BaseException) -> str:
    """Return an error as a detail that is equal for equal causes: no address, no number, one short line."""
    text = re.sub(r"<[^>]*0x[0-9a-fA-F]+>", "body", f"{type(error).__name__}: {error}")
    return re.sub(r"\d+", "N", " ".join(text.split()))[:120]


def _decode(data: bytes, format_name: str, settings: DownloadSettings) -> Decoded | Rejected:
    Image.MAX_IMAGE_PIXELS = None  # the size was and is judged here, by max_pixels
    with Image.open(io.BytesIO(data), formats=(format_name,)) as opened:
        refused = check_size(*opened.size, settings)  # Pillow may see another size than the header claims
        if refused:
            return refused
        orientation = opened.getexif().get(_ORIENTATION, 1)
        is_turned = orientation in (5, 6, 7, 8)
        original_size = (opened.height, opened.width) if is_turned else opened.size
        inner, canvas = target_sizes(original_size, settings.resize_mode, settings.image_size)
        lying = (inner[1], inner[0]) if is_turned else inner
        if format_name == "JPEG":
            opened.draft(None, (int(lying[0] * _DRAFT_MARGIN), int(lying[1] * _DRAFT_MARGIN)))
        opened.load()
        small = _resized(_plain(opened), lying)
        upright = small.transpose(_TURNS[orientation]) if orientation in _TURNS else small
        resized = _srgb(upright, opened.info.get("icc_profile"))
    placed = _placed(resized, canvas)
    return Decoded(
        image=encode(placed, settings),
        width=placed.width,
        height=placed.height,
        original_width=original_size[0],
        original_height=original_size[1],
        sha256=sha256_of(data),
        phash=phash_of(resized),
        mime=STORED_MIMES[settings.encode_format],
        format=format_name,
    )


def target_sizes(size: Size, mode: str, side: int) -> tuple[Size, Size]:
    """Return (resized, final) sizes, px, of img2dataset's resize modes.

    `keep_ratio` and `center_crop` bring the shorter side to `side`, `border` and `keep_ratio_largest` the longer one;
    then `center_crop` cuts and `border` pads to a square.
    """
    if mode == "no":
        return size, size
    by_shorter = mode in ("keep_ratio", "center_crop")
    scale = side / (min(size) if by_shorter else max(size))
    inner = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return inner, (side, side) if mode in ("center_crop", "border") else inner


def encode(picture: Image.Image, settings: DownloadSettings) -> bytes:
    """Return a picture's stored encoding: pixels only, no metadata."""
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    out = io.BytesIO()
    options = {} if settings.encode_format == "png" else {"quality": settings.encode_quality}
    clean.save(out, STORED_FORMATS[settings.encode_format], **options)
    return out.getvalue()


def _plain(picture: Image.Image) -> Image.Image:
    """Return the first frame as L, RGB or CMYK, alpha on white."""
    mode = picture.mode
    if mode in _DEEP_MODES:
        return Image.fromarray(_eight_bits(picture))
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, _WHITE)
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    if mode == "1":
        return picture.convert("L")
    return picture if mode in ("L", "RGB", "CMYK") else picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> np.ndarray:
    deep = np.asarray(picture).astype(np.int64)
    return (np.clip(deep, 0, 65535) >> 8).astype(np.uint8)


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    if picture.size == size:
        return picture
    shrinks = size[0] * size[1] < picture.width * picture.height
    return picture.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS)


def _srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # a broken or foreign profile means as much as none
        if converted is not None:
            return converted
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _placed(picture: Image.Image, canvas: Size) -> Image.Image:
    """Return the picture cut or padded with white to the canvas, centred."""
    if picture.size == canvas:
        return picture
    left, top = (picture.width - canvas[0]) // 2, (picture.height - canvas[1]) // 2
    if left >= 0 and top >= 0:
        return picture.crop((left, top, left + canvas[0], top + canvas[1]))
    padded = Image.new("RGB", canvas, _WHITE)
    padded.paste(picture, ((canvas[0] - picture.width) // 2, (canvas[1] - picture.height) // 2))
    return padded
