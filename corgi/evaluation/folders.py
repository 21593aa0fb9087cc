"""Folders of pictures for scoring, in the order of their names; a picture that cannot be read is an error of one line."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from corgi.feeding.pictures import at_side
from corgi.inference.prompts import PROMPT
from corgi.settings.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Folder:
    """Pictures of a folder and its subfolders, by name, and their captions if all pictures have one."""

    path: str
    pictures: list[Image.Image]
    captions: list[str] | None


def read_folder(path: str, side: int | None = None) -> Folder:
    """Return the pictures of a folder and of those below it as RGB.

    A caption is the text chunk `prompt` that generate.py writes, or a .txt file of the picture's name.

    Args:
        path: the folder.
        side: resize the shorter side to it and crop the centre (Pillow, bicubic, antialias); None: leave pictures unchanged.

    Raises:
        InputError: it is not a folder, it has fewer than two pictures, or a picture cannot be read.

    """
    if not Path(path).is_dir():
        raise InputError(f"{path} is not a folder; nothing was scored; name a folder of pictures")
    files = sorted(file for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise InputError(
            f"{path} has {len(files)} pictures; nothing was scored; name a folder of two or more"
        )
    pictures_and_captions = [_read(file, side) for file in files]
    captions = [caption for _, caption in pictures_and_captions if caption is not None]
    return Folder(
        path,
        [picture for picture, _ in pictures_and_captions],
        captions if len(captions) == len(pictures_and_captions) else None,
    )


def _read(file: Path, side: int | None) -> tuple[Image.Image, str | None]:
    try:
        with Image.open(file) as opened:
            caption = opened.info.get(PROMPT)
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"{file} cannot be read as a picture: {cause}; nothing was scored; remove it"
        ) from error
    if caption is None and file.with_suffix(".txt").is_file():
        caption = file.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").strip()
    return (picture if side is None else at_side(picture, side)), None if caption is None else str(caption)
