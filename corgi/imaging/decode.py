"""Decodes one body to one stored image: upright, RGB, sRGB, resized, re-encoded without metadata.

`decode` reads untrusted bytes and runs in the bounded child processes of `pool.py`; `decode_stored` opens only Corgi's own encodings.
Common layouts are read by OpenCV, a JPEG at the smallest of its scales that is not below the target size. All others are read by
Pillow: PNG, whose OpenCV reader allocates gigabytes if a chunk declares them, animations, transparency, palettes, CMYK, other formats.
"""

import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from corgi.imaging.colour import srgb_transform, to_srgb
from corgi.imaging.header import Header, check_header, check_limits, check_size, sniff
from corgi.imaging.metadata import Metadata, png_of_pixels_only, read_metadata
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

STORED_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
STORED_MIMES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
OUT_OF_MEMORY = Rejection(Reason.DECODE_FAILED, "more memory than a decoder may take")
_DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_SCALES = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))
_QUALITY = {"jpg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}
_PNG_COMPRESSION = 6
_ROWS_SWAPPED = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""
_WHITE = (255, 255, 255)
_HASH_SIDE, _HASH_LOW, _HASH_FROM = 32, 8, 128
_HASH_WEIGHTS = np.outer([2**0.5, *[1] * 7], [2**0.5, *[1] * 7]).astype(np.float32)
_SHARP_UP_TO, _INTERPOLATED_UP_TO, _SOFTENING = 1.25, 2.05, 0.25

Size = tuple[int, int]
Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class StoredImage:
    """A stored image.

    image is the new encoding and mime its type; width and height are its size, original_width and original_height those of
    the upright original, px; sha256 is that of the raw bytes, phash that of the uncropped image; format is the original's.
    animated: whether the original has more frames, None if the engine does not report it. http_status and num_bytes describe the
    response, None if there was none or the engine does not report them.
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
    animated: bool | None = None
    http_status: int | None = None
    num_bytes: int | None = None


def decode(data: bytes, settings: DownloadSettings, header: Header | None = None) -> StoredImage | Rejection:
    """Return the stored image made from a body, or the rejection; never raises.

    Args:
        data: the body, untrusted.
        settings: limits, size and encoding.
        header: what `check_header` returned for the body, if it was called before.

    """
    try:
        checked = header or check_header(data, settings) or _opened_header(data, settings)
        if isinstance(checked, Rejection):
            return checked
        metadata = read_metadata(data, checked.format)
        if isinstance(metadata, Rejection):
            return metadata
        return _decode(data, checked, metadata, settings)
    except MemoryError:
        return OUT_OF_MEMORY
    except (
        Exception
    ) as error:  # a decoder may raise anything on untrusted bytes; it becomes this row's reason
        return Rejection(Reason.DECODE_FAILED, template(error))


def decode_stored(data: bytes) -> Image.Image:
    """Return one of Corgi's stored encodings as an RGB image."""
    with Image.open(io.BytesIO(data), formats=tuple(STORED_FORMATS.values())) as picture:
        return picture.convert("RGB")


def sha256_of(data: bytes) -> str:
    """Return the sha256 of raw bytes, in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def phash_of(picture: Image.Image) -> str:
    """Return the 64-bit perceptual hash of an RGB image, 16 hex digits.

    ImageHash's `phash`, with an area filter before the cosine transform: the signs, against their median, of the lowest
    8 x 8 frequencies of the image resized to 32 x 32 grey pixels.
    """
    return _phash(cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR))


def template(error: BaseException) -> str:
    """Return an error as one short line without addresses and numbers, which is the same for the same cause."""
    text = re.sub(r"<[^>]*0x[0-9a-fA-F]+>", "body", f"{type(error).__name__}: {error}")
    return re.sub(r"\d+", "N", " ".join(text.split()))[:120]


def target_sizes(size: Size, mode: str, side: int, only_if_bigger: bool = False) -> tuple[Size, Size]:
    """Return (resized, final) sizes, px, of img2dataset's resize modes.

    `keep_ratio` and `center_crop` resize the shorter side to `side`, `border` and `keep_ratio_largest` the longer one, also of
    smaller images; then `center_crop` crops and `border` pads to a square. With `only_if_bigger` an image whose deciding side
    is not over `side` is left unchanged: neither enlarged nor cropped nor padded.
    """
    by_shorter = mode in ("keep_ratio", "center_crop")
    deciding = min(size) if by_shorter else max(size)
    if mode == "no" or (only_if_bigger and deciding <= side):
        return size, size
    scale = side / deciding
    inner = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return inner, (side, side) if mode in ("center_crop", "border") else inner


def _opened_header(data: bytes, settings: DownloadSettings) -> Header | Rejection:
    """Return the header as Pillow reads it, for formats that `formats.py` does not read."""
    Image.MAX_IMAGE_PIXELS = None  # the size is checked here, against max_pixels
    format_name = sniff(data) or ""
    with _silence(), Image.open(io.BytesIO(data), formats=(format_name,)) as opened:
        width, height = opened.size
        frames = _num_frames(opened, settings.max_frames)
    return check_limits(Header(format_name, width, height, frames), settings)


def _num_frames(opened: Image.Image, most: int) -> int:
    """Return the number of frames of an image, at most `most` + 1."""
    number = 1
    with contextlib.suppress(EOFError):
        while number <= most:
            opened.seek(number)
            number += 1
    return number


def _decode(
    data: bytes, header: Header, metadata: Metadata, settings: DownloadSettings
) -> StoredImage | Rejection:
    pixels = _common(data, header, metadata, settings)
    if pixels is None:
        result = _uncommon(data, header, metadata, settings)
        if isinstance(result, Rejection):
            return result
        pixels, original = result
    else:
        original = _upright(header.width, header.height, metadata.orientation)
    _, canvas = _sizes(original, settings)
    placed = _placed(pixels, canvas)
    return StoredImage(
        image=_encoded(placed, settings),
        width=placed.shape[1],
        height=placed.shape[0],
        original_width=original[0],
        original_height=original[1],
        sha256=sha256_of(data),
        phash=_phash(pixels),
        mime=STORED_MIMES[settings.encode_format],
        format=header.format,
        animated=header.frames > 1,
    )


def _sizes(original: Size, settings: DownloadSettings) -> tuple[Size, Size]:
    return target_sizes(original, settings.resize_mode, settings.image_size, settings.resize_only_if_bigger)


def _upright(width: int, height: int, orientation: int) -> Size:
    return (height, width) if orientation in _ROWS_SWAPPED else (width, height)


def _common(data: bytes, header: Header, metadata: Metadata, settings: DownloadSettings) -> Pixels | None:
    """Return the upright, resized BGR pixels of an image of common layout; None if it must be read by Pillow."""
    if not header.is_plain or (header.channels != 3 and metadata.profile):
        return None
    inner, _ = _sizes(_upright(header.width, header.height, metadata.orientation), settings)
    if inner[0] * inner[1] > settings.max_pixels:
        return None
    unrotated = _upright(*inner, metadata.orientation)
    scale, flag = 1, cv2.IMREAD_COLOR
    if header.format == "JPEG":
        fitting = (
            s for s in _SCALES if s[0] * unrotated[0] <= header.width and s[0] * unrotated[1] <= header.height
        )
        scale, flag = next(fitting, (scale, flag))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.shape[:2] != (-(-header.height // scale), -(-header.width // scale)):
        return None
    upright = _turned(resized(pixels, unrotated), metadata.orientation)
    transform = srgb_transform(metadata.profile, "RGB") if metadata.profile else None
    if transform is None:
        return upright
    return _bgr(to_srgb(Image.fromarray(cv2.cvtColor(upright, cv2.COLOR_BGR2RGB)), metadata.profile))


def resized(pixels: Pixels, size: Size) -> Pixels:
    """Return pixels at another size, (width, height).

    For shrinking up to two times (all that remains to be done for a JPEG) the image is blurred slightly against moire and then
    interpolated: this takes a quarter of the CPU time of OpenCV's area filter, and is as close to a Lanczos filter as Pillow's
    antialiased bilinear one. For more shrinking the area filter is used, for enlarging Lanczos.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if size[0] > width or size[1] > height:
        return cv2.resize(pixels, size, interpolation=cv2.INTER_LANCZOS4)
    factor = max(width / size[0], height / size[1])
    if factor > _INTERPOLATED_UP_TO:
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    edge = _SOFTENING * (factor - _SHARP_UP_TO)
    if edge > 0:
        kernel = np.array([edge, 1 - 2 * edge, edge], np.float32)
        pixels = cv2.sepFilter2D(pixels, -1, kernel, kernel)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    if orientation in _ROWS_SWAPPED:
        pixels = cv2.transpose(pixels)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return cv2.flip(pixels, flips[orientation]) if orientation in flips else pixels


def _uncommon(
    data: bytes, header: Header, metadata: Metadata, settings: DownloadSettings
) -> tuple[Pixels, Size] | Rejection:
    """Return the upright, resized BGR pixels and the upright original's size of any image that Pillow reads."""
    if header.format == "PNG":
        data = png_of_pixels_only(data)
    Image.MAX_IMAGE_PIXELS = None  # the size was checked before and is checked here, against max_pixels
    with _silence(), Image.open(io.BytesIO(data), formats=(header.format,)) as opened:
        rejection = check_size(*opened.size, settings)  # Pillow may read a different size than the header's
        if rejection:
            return rejection
        if header.format in ("TIFF", "AVIF"):  # their readers rotate the image when they load it
            ImageOps.exif_transpose(opened, in_place=True)
        original = _upright(*opened.size, metadata.orientation)
        inner, _ = _sizes(original, settings)
        if inner[0] * inner[1] > settings.max_pixels:
            return Rejection(Reason.TOO_MANY_PIXELS, "after resizing")
        unrotated = _upright(*inner, metadata.orientation)
        if header.format == "JPEG":
            opened.draft(None, unrotated)
        opened.load()
        small = _shrunk(_plain(opened), unrotated)
        profile = metadata.profile or opened.info.get("icc_profile")
    return _turned(_bgr(to_srgb(small, profile)), metadata.orientation), original


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _plain(picture: Image.Image) -> Image.Image:
    """Return the first frame as L, RGB or CMYK, with alpha blended on white."""
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


def _eight_bits(picture: Image.Image) -> UInt8[np.ndarray, "height width"]:
    deep = np.asarray(picture).astype(np.int64)
    return (np.clip(deep, 0, 65535) >> 8).astype(np.uint8)


def _shrunk(picture: Image.Image, size: Size) -> Image.Image:
    if picture.size == size:
        return picture
    shrinks = size[0] <= picture.width and size[1] <= picture.height
    return picture.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS)


def _bgr(picture: Image.Image) -> Pixels:
    return cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)


def _placed(pixels: Pixels, canvas: Size) -> Pixels:
    """Return the image cropped or padded with white to the canvas, centred."""
    height, width = pixels.shape[:2]
    if (width, height) == canvas:
        return pixels
    left, top = (width - canvas[0]) // 2, (height - canvas[1]) // 2
    if left >= 0 and top >= 0:
        return pixels[top : top + canvas[1], left : left + canvas[0]]
    padded = np.full((canvas[1], canvas[0], 3), 255, np.uint8)
    left, top = (canvas[0] - width) // 2, (canvas[1] - height) // 2
    padded[top : top + height, left : left + width] = pixels
    return padded


def _encoded(pixels: Pixels, settings: DownloadSettings) -> bytes:
    """Return the stored encoding: pixels only, no metadata."""
    name = settings.encode_format
    options = (
        [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION]
        if name == "png"
        else [_QUALITY[name], settings.encode_quality]
    )
    return cv2.imencode(f".{name}", pixels, options)[1].tobytes()


def _phash(pixels: Pixels) -> str:
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    if max(grey.shape) > 4 * _HASH_FROM:
        grey = cv2.resize(grey, (_HASH_FROM, _HASH_FROM), interpolation=cv2.INTER_AREA)
    # averaging by a whole number is many times cheaper than by other factors, and it evens out what the first step blurs or skips
    grey = cv2.resize(grey, (_HASH_FROM, _HASH_FROM), interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_HASH_LOW, :_HASH_LOW]
    # the hash is defined on the transform without the orthonormal weights of the first row and column
    low = low * _HASH_WEIGHTS
    middle = np.sort(low, axis=None)[31:33]
    return np.packbits(low > (middle[0] + middle[1]) / 2).tobytes().hex()
