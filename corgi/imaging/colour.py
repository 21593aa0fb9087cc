"""Conversion from ICC profiles to sRGB; the transform is built once per profile instead of once per image.

Most profiles on the web are versions of sRGB itself; for a profile that leaves a grid of colours unchanged no pixel is transformed.
"""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

PROFILES_KEPT = 32
SAME_WITHIN = 2
"""Levels out of 255 by which a transform may change a colour and still counts as the identity."""
_GRID = np.linspace(0, 255, 17).astype(np.uint8)


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an L, RGB or CMYK image as RGB in sRGB; an invalid or incompatible profile is ignored."""
    transform = srgb_transform(profile, picture.mode) if profile else None
    if transform is not None:
        converted = ImageCms.applyTransform(picture, transform)
        assert converted is not None  # only an in-place transform returns nothing
        return converted
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@functools.lru_cache(maxsize=PROFILES_KEPT)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB for images of a mode; None if it changes nothing or the profile is invalid."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if mode == "RGB" and _is_identity(transform) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    colours = np.stack(np.meshgrid(_GRID, _GRID, _GRID), axis=-1).reshape(17, -1, 3)
    moved = ImageCms.applyTransform(Image.fromarray(colours), transform)
    return moved is not None and bool(np.abs(np.asarray(moved).astype(int) - colours).max() <= SAME_WITHIN)
