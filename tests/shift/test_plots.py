"""Figures come out as whole PNG files, the same for the same figures, also with nothing to show."""

import io

import numpy as np
from PIL import Image

from corgi.shift import plots
from tests.support.drawn import picture


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as opened:
        opened.load()
        return opened.size


def test_figures_are_png_and_repeat() -> None:
    values = np.linspace(-0.5, 0.5, 50)
    made = [
        lambda: plots.occupancy(np.array([5, 0, 9])),
        lambda: plots.spectrum(np.array([1.0, 0.1, 0.0])),
        lambda: plots.cosines({"a": values, "nothing": values[:0]}),
        lambda: plots.contact_sheet([("cluster 1", [picture(1), picture(2)]), ("cluster 2", [])]),
    ]
    for draw in made:
        first = draw()
        assert min(size(first)) > 50
        assert draw() == first


def test_the_contact_sheet_shows_the_pictures() -> None:
    with Image.open(io.BytesIO(plots.contact_sheet([("c", [Image.new("RGB", (64, 64), "red")])]))) as sheet:
        assert (np.asarray(sheet.convert("RGB")) == [255, 0, 0]).all(axis=2).sum() > 3000
