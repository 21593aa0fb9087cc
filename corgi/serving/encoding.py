"""Painted pictures as bytes for a client."""

import base64
import io

from PIL import Image

from corgi.inference.png import png_bytes
from corgi.serving.wire import PictureFormat

QUALITY = 90
"""Of webp and jpeg where the request names none."""


def encoded(picture: Image.Image, kind: PictureFormat, quality: int | None) -> bytes:
    """Return a picture in a format; a PNG says what it was made from."""
    if kind == "png":
        return png_bytes(picture)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, kind.upper(), quality=QUALITY if quality is None else quality)
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode()
