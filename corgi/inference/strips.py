"""Several pictures in one file: side by side in a strip, or one after the other in a GIF."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from corgi.storage.errors import storage_full

GAP_PX = 2
FRAME_MS, LAST_FRAME_MS = 200, 1500
"""How long a frame and the last frame of a GIF are shown, ms."""


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures of the same size side by side, with the last one's `info`."""
    width, height = pictures[0].size
    joined = Image.new("RGB", (len(pictures) * (width + GAP_PX) - GAP_PX, height), "white")
    for index, picture in enumerate(pictures):
        joined.paste(picture, (index * (width + GAP_PX), 0))
    joined.info = dict(pictures[-1].info)
    return joined


def save_gif(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write pictures as the frames of a looping GIF; the last one is shown longer.

    Raises:
        StorageError: the disk is full.

    """
    frames = [picture.convert("P", palette=Image.Palette.ADAPTIVE) for picture in pictures]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    try:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    except OSError as error:
        path.unlink(missing_ok=True)
        storage_full(error, path)
