"""The sample grid: caption | true picture | painted from its true embedding | painted from the prior's embedding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypedDict

from PIL import Image, ImageDraw, ImageFont

CELL = 144
CAPTION_WIDTH = 260
HEADER = 34
BAND = 30
"""Height of the line of text above a group, px."""
COLUMNS = ("true picture", "from true embedding", "from prior")
NEIGHBOUR = "training picture\nnearest to it"
COLUMNS_WITH_NEIGHBOURS = ("true picture", "from true\nembedding", NEIGHBOUR, "from prior", NEIGHBOUR)
TRAIN, HELD_OUT, PAIR, CONCEPT = "TRAIN", "HELD-OUT", "HELD-OUT PAIR", "HELD-OUT CONCEPT"
MEANINGS = {
    TRAIN: "the decoder was trained on these pictures: what it paints here is recall",
    HELD_OUT: "nothing was trained on these pictures",
    PAIR: "nothing was trained on these pictures; their concepts were seen in another picture",
    CONCEPT: "nothing was trained on these concepts, in any picture",
}


class RowFacts(TypedDict):
    """A row of the grid as JSON: its texts, and its top edge, px."""

    label: str
    meaning: str
    caption: str
    credit: str
    seed: int | None
    nearest: list[str]
    top: int


class GridFacts(TypedDict):
    """A grid as JSON: the side of a picture and the left edges of the columns, px, with their titles."""

    cell: int
    columns: list[str]
    lefts: list[int]
    rows: list[RowFacts]


_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class GridRow:
    """One row: its label (TRAIN, HELD-OUT, ...), caption, pictures by column, and the credit of the true picture."""

    label: str
    caption: str
    pictures: Sequence[Image.Image]
    credit: str = ""
    seed: int | None = None
    """Seed with which both pictures were painted."""
    nearest: Sequence[str] = ()
    """Uids of the training pictures in the row, in the order of their columns."""


def paint_grid(
    rows: Sequence[GridRow], columns: Sequence[str] = COLUMNS, grouped: bool = False, num_seen: int = 0
) -> Image.Image:
    """Return the grid as one picture; with `grouped` a line above each label's rows says what the label means.

    `num_seen` is how many training pictures the decoder reads for each picture that it paints; the header says so.
    """
    font = ImageFont.load_default(15)
    first = _first_title(num_seen)
    header = _header_height(columns, num_seen)
    groups = [(label, list(members)) for label, members in groupby(rows, lambda row: row.label)]
    band = BAND if grouped else 0
    height = header + len(rows) * (CELL + 8) + len(groups) * band + 8
    sheet = Image.new("RGB", (CAPTION_WIDTH + len(columns) * (CELL + 8) + 8, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((10, 8), first, fill="black", font=font)
    for column, title in enumerate(columns):
        draw.text((CAPTION_WIDTH + column * (CELL + 8), 8), title, fill="black", font=font)
    top = header
    for label, members in groups:
        if grouped:
            heading = f"{label}: {MEANINGS.get(label, '')}"
            draw.text((10, top + 4), heading, fill=_colour(label), font=font)
            top += band
        for row in members:
            _paint_row(sheet, draw, row, top, font)
            top += CELL + 8
    return sheet


def grid_facts(
    rows: Sequence[GridRow], columns: Sequence[str] = COLUMNS, grouped: bool = False, num_seen: int = 0
) -> GridFacts:
    """Return as JSON what `paint_grid` draws for these arguments: the texts of each row, and the positions of its pictures, px."""
    top, row_facts = _header_height(columns, num_seen), list[RowFacts]()
    for label, members in groupby(rows, lambda row: row.label):
        top += BAND if grouped else 0
        for row in members:
            row_facts.append(
                {
                    "label": label,
                    "meaning": MEANINGS.get(label, ""),
                    "caption": row.caption,
                    "credit": row.credit,
                    "seed": row.seed,
                    "nearest": list(row.nearest),
                    "top": top,
                }
            )
            top += CELL + 8
    titles = [title.replace("\n", " ") for title in columns]
    lefts = [CAPTION_WIDTH + column * (CELL + 8) for column in range(len(columns))]
    return {"cell": CELL, "columns": titles, "lefts": lefts, "rows": row_facts}


def _first_title(num_seen: int) -> str:
    return f"caption\nthe decoder sees {num_seen}\ntraining pictures" if num_seen else "caption"


def _header_height(columns: Sequence[str], num_seen: int) -> int:
    return HEADER + 18 * max(title.count("\n") for title in (_first_title(num_seen), *columns))


def _paint_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: GridRow, top: int, font: _Font) -> None:
    draw.text((10, top + 34), row.label, fill=_colour(row.label), font=font)
    lines = list(_wrapped(row.caption, font))
    for line, text in enumerate(lines):
        draw.text((10, top + 56 + 18 * line), text, fill="black", font=font)
    if row.credit:
        small = ImageFont.load_default(11)
        for line, text in enumerate(_wrapped(row.credit, small)):
            draw.text((10, top + 60 + 18 * len(lines) + 13 * line), text, fill="#666666", font=small)
    for column, picture in enumerate(row.pictures):
        sheet.paste(
            picture.convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC),
            (CAPTION_WIDTH + column * (CELL + 8), top),
        )


def _colour(label: str) -> str:
    return "#1b5e20" if label == TRAIN else "#b00020"


def _wrapped(text: str, font: _Font) -> Iterator[str]:
    """Yield the first three lines of a caption, wrapped to the width of its column."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= CAPTION_WIDTH - 20 or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    yield from lines[:3]
