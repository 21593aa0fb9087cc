"""The grid shows every row's label, caption and three pictures at their place."""

import numpy as np
import pytest
from PIL import Image

from corgi.evaluation.grid import (
    BAND,
    CAPTION_WIDTH,
    CELL,
    COLUMNS,
    COLUMNS_WITH_NEIGHBOURS,
    CONCEPT,
    HEADER,
    PAIR,
    TRAIN,
    GridRow,
    grid_facts,
    paint_grid,
)


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


def test_groups_stand_apart_under_a_line_of_their_own_with_a_neighbour_beside_each_painting():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    pictures = [Image.new("RGB", (64, 64), colour) for colour in colours]
    labels = [TRAIN, TRAIN, PAIR, CONCEPT]
    rows = [GridRow(label, "fox", pictures, "Set, CC BY 4.0") for label in labels]
    sheet = np.asarray(paint_grid(rows, COLUMNS_WITH_NEIGHBOURS, grouped=True))
    bands = [1, 1, 2, 3]
    for index, band in enumerate(bands):
        top = HEADER + 18 + index * (CELL + 8) + band * BAND
        for column, colour in enumerate(colours):
            x = CAPTION_WIDTH + column * (CELL + 8) + CELL // 2
            assert tuple(sheet[top + CELL // 2, x]) == colour
    for index, band in ((0, 0), (2, 1), (3, 2)):
        top = HEADER + 18 + index * (CELL + 8) + band * BAND
        assert (sheet[top : top + BAND - 8] < 255).any()


def test_a_credit_is_drawn_below_its_caption():
    blank = Image.new("RGB", (8, 8), "white")
    plain, credited = (
        np.asarray(paint_grid([GridRow(TRAIN, "x", [blank] * 3, credit)]))
        for credit in ("", "Set, CC BY 4.0")
    )
    where = (plain != credited).any(-1)
    assert where.any()
    assert not where[: HEADER + 76].any()
    assert not where[:, CAPTION_WIDTH:].any()


def test_the_header_says_that_the_decoder_saw_training_pictures():
    blank = Image.new("RGB", (8, 8), "white")
    plain, seen = (np.asarray(paint_grid([GridRow("TRAIN", "x", [blank] * 3)], num_seen=n)) for n in (0, 3))
    added = seen.shape[0] - plain.shape[0]
    assert added > 0
    assert (seen[HEADER - 4 : HEADER + added - 4, :CAPTION_WIDTH] < 255).any()
    assert np.array_equal(seen[HEADER + added :], plain[HEADER:])


@pytest.mark.parametrize("num_seen", [0, 4])
@pytest.mark.parametrize(("columns", "grouped"), [(COLUMNS, False), (COLUMNS_WITH_NEIGHBOURS, True)])
def test_law_the_facts_of_a_grid_say_where_each_picture_is(columns, grouped, num_seen):
    labels = [TRAIN, TRAIN, PAIR, CONCEPT]
    colours = np.random.default_rng(0).integers(0, 255, (len(labels), len(columns), 3))
    rows = [
        GridRow(
            label,
            f"caption {n}",
            [Image.new("RGB", (64, 64), tuple(map(int, one))) for one in colours[n]],
            seed=n,
        )
        for n, label in enumerate(labels)
    ]
    sheet = paint_grid(rows, columns, grouped, num_seen)
    facts = grid_facts(rows, columns, grouped, num_seen)
    for n, row in enumerate(facts["rows"]):
        assert (row["label"], row["caption"], row["seed"]) == (labels[n], f"caption {n}", n)
        for left, colour in zip(facts["lefts"], colours[n], strict=True):
            cell = sheet.crop((left, row["top"], left + facts["cell"], row["top"] + facts["cell"]))
            assert cell.getextrema() == tuple((value, value) for value in colour.tolist())
