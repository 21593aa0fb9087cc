"""Several pictures as one file: every one is in it, in order."""

from pathlib import Path

import numpy as np
from PIL import Image

from corgi.inference.strips import GAP_PX, save_gif, strip


def pictures(number: int = 4) -> list[Image.Image]:
    return [Image.new("RGB", (6, 5), (40 * n, 0, 255 - 40 * n)) for n in range(number)]


def test_law_a_strip_holds_every_picture_in_order() -> None:
    given = pictures()
    given[-1].info["seed"] = "3"
    made = strip(given)
    assert made.size == (4 * 6 + 3 * GAP_PX, 5)
    assert made.info == {"seed": "3"}
    for place, one in enumerate(given):
        cut = made.crop((place * (6 + GAP_PX), 0, place * (6 + GAP_PX) + 6, 5))
        np.testing.assert_array_equal(np.asarray(cut), np.asarray(one))


def test_a_gif_has_a_frame_per_picture(tmp_path: Path) -> None:
    given = pictures()
    save_gif(given, tmp_path / "steps.gif")
    with Image.open(tmp_path / "steps.gif") as read:
        assert getattr(read, "n_frames", 1) == 4
        for frame, one in enumerate(given):
            read.seek(frame)
            np.testing.assert_array_equal(np.asarray(read.convert("RGB")), np.asarray(one))
