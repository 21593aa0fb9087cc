"""The sample grid: caption | true picture | painted from its true embedding | painted from the prior's embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL = 144
CAPTION_WIDTH = 260
HEADER = 34
COLUMNS = ("true picture", "from true embedding", "from prior")


@dataclass(frozen=True)
class GridRow:
    """One row: its label (TRAIN or HELD-OUT), caption and three pictures."""

    label: str
    caption: str
    pictures: tuple[Image.Image, Image.Image, Image.Image]


def paint_grid(rows: Sequence[GridRow]) -> Image.Image:
    """Return the grid as one picture."""
    font = ImageFont.load_default(15)
    sheet = Image.new(
        "RGB", (CAPTION_WIDTH + len(COLUMNS) * (CELL + 8) + 8, HEADER + len(rows) * (CELL + 8) + 8), "white"
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 8), "caption", fill="black", font=font)
    for column, title in enumerate(COLUMNS):
        draw.text((CAPTION_WIDTH + column * (CELL + 8), 8), title, fill="black", font=font)
    for index, row in enumerate(rows):
        top = HEADER + index * (CELL + 8)
        colour = "#b00020" if row.label == "HELD-OUT" else "#1b5e20"
        draw.text((10, top + 34), row.label, fill=colour, font=font)
        for line, text in enumerate(_wrapped(row.caption, font)):
            draw.text((10, top + 56 + 18 * line), text, fill="black", font=font)
        for column, picture in enumerate(row.pictures):
            sheet.paste(
                picture.convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC),
                (CAPTION_WIDTH + column * (CELL + 8), top),
            )
    return sheet


def _wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Break a caption into at most three lines that fit their column."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= CAPTION_WIDTH - 20 or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:3]
