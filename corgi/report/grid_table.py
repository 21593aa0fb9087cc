"""The sample grid as a table: captions, seeds and training images as text next to the pictures, which are cropped from the committed grid."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from corgi.evaluation.grid import GridFacts, RowFacts
from corgi.report import funnel


@dataclass(frozen=True)
class Cell:
    """A picture of the grid: its column, its data URI, and its uid if it is a training image."""

    column: str
    uri: str
    uid: str


@dataclass(frozen=True)
class GridRow:
    """A row of the grid: the caption, the seed, the credit of the true image, and the pictures."""

    caption: str
    seed: str
    credit: str
    cells: list[Cell]


@dataclass(frozen=True)
class GridGroup:
    """Rows of one label, and what the label means."""

    label: str
    meaning: str
    rows: list[GridRow]


def grid_groups(facts: GridFacts, grid: bytes) -> list[GridGroup]:
    """Return the grid's rows by label; `facts` are those that evaluation commits with the grid."""
    with Image.open(io.BytesIO(grid)) as opened:
        sheet = opened.convert("RGB")
    return [
        GridGroup(label, members[0]["meaning"], [_row(facts, row, sheet) for row in members])
        for label, members in _grouped(facts["rows"])
    ]


def _grouped(rows: Sequence[RowFacts]) -> list[tuple[str, list[RowFacts]]]:
    return [(str(label), list(members)) for label, members in groupby(rows, lambda row: row["label"])]


def _row(facts: GridFacts, row: RowFacts, sheet: Image.Image) -> GridRow:
    side, uids = facts["cell"], iter(row["nearest"])
    cells: list[Cell] = []
    for column, left in zip(facts["columns"], facts["lefts"], strict=True):
        buffer = io.BytesIO()
        sheet.crop((left, row["top"], left + side, row["top"] + side)).save(buffer, "JPEG", quality=85)
        uid = next(uids, "") if column.startswith("training") else ""
        cells.append(Cell(column, funnel.data_uri(buffer.getvalue(), "image/jpeg"), uid))
    seed = "" if row["seed"] is None else str(row["seed"])
    return GridRow(row["caption"], seed, row["credit"], cells)
