"""Folders as scores read them: every picture in the order of names, captions where all have one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corgi.evaluation.folders import read_folder
from corgi.feeding.pictures import at_side
from corgi.inference.png import save_png
from corgi.settings.errors import InputError


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    return Image.fromarray(drawn)


def test_pictures_come_in_the_order_of_names_with_their_captions(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for number, name in enumerate(("b.png", "a.PNG", "below/c.webp")):
        picture(number).save(tmp_path / name, lossless=True)
        (tmp_path / name).with_suffix(".txt").write_text(f"caption {name}\n")
    told = picture(3)
    told.info["prompt"] = "from its chunk"
    save_png(told, tmp_path / "z.png")
    found = read_folder(str(tmp_path))
    assert found.captions == ["caption a.PNG", "caption b.png", "caption below/c.webp", "from its chunk"]
    for read, seed in zip(found.pictures, (1, 0, 2, 3), strict=True):
        np.testing.assert_array_equal(np.asarray(read), np.asarray(picture(seed)))
    (tmp_path / "b.txt").unlink()
    assert read_folder(str(tmp_path)).captions is None


@pytest.mark.parametrize("size", [(40, 24), (24, 40), (33, 33)])
def test_law_resizing_is_pillows_bicubic_and_a_centre_crop(size: tuple[int, int]) -> None:
    made = at_side(picture(0, size), 16)
    ratio = 16 / min(size)
    width, height = (round(length * ratio) for length in size)
    left, top = (width - 16) // 2, (height - 16) // 2
    expected = (
        picture(0, size)
        .resize((width, height), Image.Resampling.BICUBIC)
        .crop((left, top, left + 16, top + 16))
    )
    np.testing.assert_array_equal(np.asarray(made), np.asarray(expected))
    plain = picture(0, size).resize((width, height), Image.Resampling.NEAREST)
    assert (
        np.abs(np.asarray(plain.crop((left, top, left + 16, top + 16))).astype(int) - np.asarray(made)).max()
        > 10
    )


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        read_folder(str(tmp_path / "absent"))
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="has 1 pictures"):
        read_folder(str(tmp_path))
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as a picture") as caught:
        read_folder(str(tmp_path))
    assert "\n" not in str(caught.value)
