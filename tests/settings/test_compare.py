"""Settings of the comparison that fit together."""

import pytest
from pydantic import ValidationError

from corgi.baselines import ARMS
from corgi.settings.compare import CompareSettings


@pytest.mark.parametrize(("width", "heads", "fits"), [(32, 2, True), (33, 3, False), (32, 3, False)])
def test_a_width_is_even_and_splits_over_its_heads(width: int, heads: int, fits: bool) -> None:
    if fits:
        assert CompareSettings(width=width, heads=heads).width == width
    else:
        with pytest.raises(ValidationError, match="must be even and a multiple of heads"):
            CompareSettings(width=width, heads=heads)


def test_arms_that_learn_their_choice_are_not_split() -> None:
    with pytest.raises(ValidationError, match=r"training\.zero_stage=0"):
        CompareSettings.model_validate({"training": {"zero_stage": 1}})


def test_every_arm_can_be_asked_for_and_no_other() -> None:
    assert CompareSettings(arms=tuple(ARMS)).arms == tuple(ARMS)
    with pytest.raises(ValidationError):
        CompareSettings.model_validate({"arms": ["dalle3"]})
