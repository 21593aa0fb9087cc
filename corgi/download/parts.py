"""The parts of the download that a recipe touches, each with a version of its own."""

from corgi.settings.recipe import Recipe
from corgi.sources.sources import HOLD_PICTURES, formats

PART_VERSIONS = {
    "fetch native": 0,
    "fetch img2dataset": 0,
    "pictures there": 0,
    **dict.fromkeys(("decode JPEG", "decode PNG", "decode WEBP", "decode GIF"), 0),
    **dict.fromkeys(("decode BMP", "decode TIFF", "decode AVIF"), 0),
    **dict.fromkeys(("resize border", "resize keep_ratio", "resize keep_ratio_largest"), 0),
    **dict.fromkeys(("resize center_crop", "resize no"), 0),
    **dict.fromkeys(("encode jpg", "encode png", "encode webp"), 0),
    "caption languages": 0,
}
"""Raised when what touches that part comes out otherwise: all other downloads stay (docs/decisions/0007)."""


def parts(recipe: Recipe) -> dict[str, int]:
    """Return the versions of what a recipe's pictures go through."""
    settings = recipe.download
    found = formats(recipe.plan)
    touched = [
        *([f"fetch {settings.engine}"] if found - HOLD_PICTURES else []),
        *(["pictures there"] if found & HOLD_PICTURES else []),
        *(f"decode {name}" for name in settings.formats),
        f"resize {settings.resize_mode}",
        f"encode {settings.encode_format}",
        *(["caption languages"] if settings.filter.caption_languages else []),
    ]
    return {name: PART_VERSIONS[name] for name in touched}
