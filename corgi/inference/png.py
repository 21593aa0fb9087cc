"""Painted pictures as PNG files, whose text chunks record what they were made from."""

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from corgi.inference.prompts import TOLD
from corgi.storage.errors import storage_full


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as PNG bytes; each entry of its `info` that `TOLD` names becomes a text chunk, and no time is stored."""
    about = PngInfo()
    for name in TOLD:
        if name in picture.info:
            about.add_text(name, str(picture.info[name]))
    body = io.BytesIO()
    picture.save(body, "PNG", pnginfo=about)
    return body.getvalue()


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, completely or not at all.

    Raises:
        StorageError: the disk is full.

    """
    try:
        path.write_bytes(png_bytes(picture))
    except OSError as error:
        path.unlink(missing_ok=True)
        storage_full(error, path)
