"""The grid shows every row's label, caption and three pictures at their place."""

import numpy as np
from PIL import Image

from corgi.evaluation.grid import CAPTION_WIDTH, CELL, HEADER, GridRow, paint_grid


def test_each_picture_stands_in_its_cell():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = tuple(Image.new("RGB", (64, 64), colour) for colour in colours)
    row = GridRow(
        "HELD-OUT",
        "a very long caption that has to be broken into several lines",
        (pictures[0], pictures[1], pictures[2]),
    )
    sheet = np.asarray(paint_grid([row, row]))
    for index in range(2):
        for column, colour in enumerate(colours):
            y, x = HEADER + index * (CELL + 8) + CELL // 2, CAPTION_WIDTH + column * (CELL + 8) + CELL // 2
            assert tuple(sheet[y, x]) == colour


def test_captions_are_drawn_and_labels_differ_in_colour():
    blank = Image.new("RGB", (8, 8), "white")
    sheets = [
        np.asarray(paint_grid([GridRow(label, "x", (blank, blank, blank))]))
        for label in ("TRAIN", "HELD-OUT")
    ]
    labels = [sheet[HEADER + 30 : HEADER + 52, :CAPTION_WIDTH] for sheet in sheets]
    assert all((label < 255).any() for label in labels)
    assert not np.array_equal(labels[0], labels[1])
