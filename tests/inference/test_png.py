"""A PNG keeps the picture and what it was made from, in any script."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corgi.inference.png import png_bytes, save_png
from corgi.inference.prompts import TOLD
from corgi.settings.errors import StorageError


def picture() -> Image.Image:
    drawn = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(drawn)


@pytest.mark.parametrize("prompt", ["a fox", "ein Füchslein", "写真 🦊", "two\nlines", "nul\0inside"])
def test_law_what_is_told_comes_back_and_nothing_else(prompt: str) -> None:
    painted = picture()
    painted.info |= {**{name: f"{name} of it" for name in TOLD}, "prompt": prompt, "private": "no"}
    data = png_bytes(painted)
    with Image.open(io.BytesIO(data)) as read:
        read.load()
        assert {name: str(value) for name, value in read.info.items()} == {
            name: painted.info[name] for name in TOLD
        }
        np.testing.assert_array_equal(np.asarray(read), np.asarray(painted))
    assert data == png_bytes(painted)


def test_a_picture_that_cannot_be_written_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "a.png"
    with pytest.raises(StorageError, match="cannot write"):
        save_png(picture(), path)
    assert not path.exists()
