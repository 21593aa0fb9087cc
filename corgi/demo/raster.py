"""Rasterises SVG to the picture files that the demo's site serves."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import resvg_py
from PIL import Image

from corgi.demo.pictures import Collection, Picture, stable_hash
from corgi.flow import screen
from corgi.settings.errors import StorageError

_ENCODING = 2
"""Increase this number by hand when the bytes that `encode` returns change."""
SIDES_PX = (128, 160, 192, 224, 256, 320, 384, 512)
AT_ONCE = 16
"""Number of pictures that one call of a process renders."""
LEAST_FOR_PROCESSES = 128
"""Smallest number of pictures for which processes are started; fewer are rendered before processes would have started."""
_ENCODERS: dict[str, tuple[str, dict[str, int]]] = {
    "jpg": ("JPEG", {"quality": 92}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90, "method": 2}),
}


def folder_name(collection: Collection) -> str:
    """Return the name of a collection's cache folder."""
    return f"pictures-{collection.version}-{_ENCODING}"


def render(svg: str, side_px: int) -> Image.Image:
    """Rasterise an SVG text as a square RGB picture on white."""
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=side_px, height=side_px, background="#ffffff", skip_system_fonts=True
    )
    return Image.open(io.BytesIO(png)).convert("RGB")


def extension(identity: str) -> str:
    """Choose jpg, png or webp by hash of the picture's id."""
    return sorted(_ENCODERS)[stable_hash(f"format {identity}") % len(_ENCODERS)]


def side_px(identity: str) -> int:
    """Choose the side by hash of the picture's id."""
    return SIDES_PX[stable_hash(f"side {identity}") % len(SIDES_PX)]


def file_name(identity: str) -> str:
    """Return the name of the picture's file in the cache and in its URL."""
    return f"{identity}.{extension(identity)}"


def encode(picture: Picture) -> bytes:
    """Render one image in the size and format of its id."""
    file_format, options = _ENCODERS[extension(picture.id)]
    body = io.BytesIO()
    render(picture.svg, side_px(picture.id)).save(body, file_format, **options)
    return body.getvalue()


def rasterise(pictures: Sequence[Picture], folder: Path) -> int:
    """Write the pictures that the folder lacks, with a process per CPU if there are many, and return their number.

    A file is written completely or not at all, so a stopped run continues where it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in os.scandir(folder) if entry.stat().st_size > 0}
        missing = [picture for picture in pictures if file_name(picture.id) not in present]
        with screen.bar("rendering pictures", len(missing), "picture") as bar:
            num_written = 0
            for number in _written(missing, folder):
                num_written += number
                bar.reach(num_written)
    except OSError as error:
        raise StorageError(
            f"cannot write pictures under {folder}: {error.strerror}; pictures already rendered are kept; "
            "make room or choose another --work folder and run again"
        ) from error
    return len(missing)


def _written(pictures: Sequence[Picture], folder: Path) -> Iterator[int]:
    """Write pictures in parts; yield the number of pictures of each part."""
    parts = [pictures[first : first + AT_ONCE] for first in range(0, len(pictures), AT_ONCE)]
    write, num_processes = functools.partial(write_pictures, folder), os.cpu_count() or 1
    if len(pictures) < LEAST_FOR_PROCESSES or num_processes == 1:
        yield from map(write, parts)
        return
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches every process of a terminal; the pool's processes ignore it, so that they print no tracebacks.
    with ProcessPoolExecutor(num_processes, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.map(write, parts)


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> int:
    """Render pictures into a folder and return their number."""
    for picture in pictures:
        write_whole(folder / file_name(picture.id), encode(picture))
    return len(pictures)


def write_whole(path: Path, body: bytes) -> None:
    """Replace a file atomically, so that no reader sees part of it."""
    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    attempt.write_bytes(body)
    os.replace(attempt, path)
