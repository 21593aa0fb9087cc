"""What is done to a painted picture: nothing unless asked for, and what it tells of itself stays."""

import numpy as np
import pytest
from PIL import Image

from corgi.inference.finish import finished
from corgi.settings.errors import SettingsError
from corgi.settings.painting import FinishSettings, finishing


def picture() -> Image.Image:
    drawn = np.random.default_rng(0).integers(60, 200, (8, 8, 3)).astype(np.uint8)
    made = Image.fromarray(drawn)
    made.info["prompt"] = "a fox"
    return made


def test_nothing_is_done_by_default() -> None:
    given = picture()
    assert finished(given, FinishSettings()) is given


@pytest.mark.parametrize("asked", [{"autocontrast": True}, {"sharpness": 2.0}, {"enlarge": True}])
def test_each_step_changes_pixels_and_keeps_what_is_told(asked: dict) -> None:
    given = picture()
    made = finished(given, finishing(**asked))
    assert made.info == {"prompt": "a fox"}
    assert made.size == ((16, 16) if "enlarge" in asked else (8, 8))
    assert np.asarray(made).tobytes() != np.asarray(given).tobytes()


def test_law_autocontrast_spans_all_bytes() -> None:
    pixels = np.asarray(finished(picture(), FinishSettings(autocontrast=True)))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_a_wrong_value_is_one_line() -> None:
    with pytest.raises(SettingsError, match="sharpness=-1") as caught:
        finishing(sharpness=-1)
    assert "\n" not in str(caught.value)
