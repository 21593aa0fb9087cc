"""The grid as a table: each cell is the picture that the grid shows there."""

import base64
import io

import numpy as np
from PIL import Image

from corgi.evaluation.grid import COLUMNS_WITH_NEIGHBOURS, CONCEPT, TRAIN, GridRow, grid_facts, paint_grid
from corgi.report.grid_table import grid_groups


def test_law_each_cell_is_the_picture_of_its_row_and_column():
    colours = np.random.default_rng(1).integers(0, 255, (3, 5, 3))
    labels = (TRAIN, TRAIN, CONCEPT)
    rows = [
        GridRow(
            label,
            f"caption {n}",
            [Image.new("RGB", (32, 32), tuple(map(int, one))) for one in colours[n]],
            "Credit",
            n,
            [f"{n}" * 32, "b" * 32],
        )
        for n, label in enumerate(labels)
    ]
    buffer = io.BytesIO()
    paint_grid(rows, COLUMNS_WITH_NEIGHBOURS, True).save(buffer, "PNG")
    groups = grid_groups(grid_facts(rows, COLUMNS_WITH_NEIGHBOURS, True), buffer.getvalue())
    assert [(group.label, len(group.rows)) for group in groups] == [(TRAIN, 2), (CONCEPT, 1)]
    shown = [row for group in groups for row in group.rows]
    assert [(row.caption, row.seed, row.credit) for row in shown] == [
        (f"caption {n}", str(n), "Credit") for n in range(3)
    ]
    for n, row in enumerate(shown):
        assert [cell.uid for cell in row.cells] == ["", "", f"{n}" * 32, "", "b" * 32]
        for cell, colour in zip(row.cells, colours[n], strict=True):
            with Image.open(io.BytesIO(base64.b64decode(cell.uri.split(",")[1]))) as picture:
                middle = picture.convert("RGB").getpixel((72, 72))
            assert np.abs(np.array(middle) - colour).max() <= 4  # JPEG
