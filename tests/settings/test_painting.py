"""How a request says what it wants: bounds, and one line for what is wrong."""

import pytest

from corgi.settings.errors import SettingsError
from corgi.settings.painting import FinishSettings, PaintSettings, finishing, painting


def test_nothing_asked_for_is_the_runs_own_way() -> None:
    assert painting() == PaintSettings()
    assert finishing() == FinishSettings()
    assert set(PaintSettings().model_dump().values()) == {None, 1}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"sampler": "euler"}, "sampler='euler'"),
        ({"guidance": -1}, "guidance=-1"),
        ({"guidance_interval": (0.5, 1.5)}, "guidance_interval.1=1.5"),
        ({"guidance_interval": (0.5, 0.1)}, "must ascend"),
        ({"best_of": 65}, "best_of=65"),
        ({"colour": "red"}, "colour="),
    ],
)
def test_a_wrong_value_is_one_line(asked: dict, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        painting(**asked)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
