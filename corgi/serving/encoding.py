"""Encoding of painted pictures for a client."""

import base64
import io

from PIL import Image

from corgi.inference.png import png_bytes
from corgi.serving.wire import PictureFormat

QUALITY = 90
"""Default quality of webp and jpeg."""


def encoded(picture: Image.Image, kind: PictureFormat, quality: int | None) -> bytes:
    """Return a picture encoded in a format; a PNG's text chunks record what it was made from."""
    if kind == "png":
        return png_bytes(picture)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, kind.upper(), quality=QUALITY if quality is None else quality)
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode()
