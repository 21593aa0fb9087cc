"""Optional processing of a painted picture before it is saved: contrast, sharpness, twice the size. All are off by default."""

from PIL import Image, ImageEnhance, ImageOps

from corgi.settings.painting import FinishSettings


def finished(picture: Image.Image, asked: FinishSettings) -> Image.Image:
    """Return the picture with the requested processing and the same `info`; the picture itself if none is requested."""
    made = picture
    if asked.autocontrast:
        made = ImageOps.autocontrast(made)
    if asked.sharpness != 1:
        made = ImageEnhance.Sharpness(made).enhance(asked.sharpness)
    if asked.enlarge:
        made = made.resize((2 * made.width, 2 * made.height), Image.Resampling.LANCZOS)
    if made is not picture:
        made.info = dict(picture.info)
    return made
