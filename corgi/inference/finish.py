"""What may be done to a painted picture before it is saved: contrast, sharpness, twice the size. All are off by default."""

from PIL import Image, ImageEnhance, ImageOps

from corgi.settings.painting import FinishSettings


def finished(picture: Image.Image, asked: FinishSettings) -> Image.Image:
    """Return a picture as asked, with what its `info` tells; the picture itself where nothing is asked."""
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
