"""Settings of embedding, curation and the shift that only together make sense."""

from typing import Any

import pytest
from pydantic import ValidationError

from corgi.settings.clip import EmbedSettings, ScoreRule, ShiftSettings

TOWER = {"name": "a", "model": "ViT-B-32", "pretrained": "random"}


REFS: dict[str, dict[str, Any]] = {
    "towers": TOWER,
    "heads": {"name": "a", "tower": "a", "file": "head.pth"},
    "tokens": {"name": "a", "model": "t5"},
}


@pytest.mark.parametrize("kind", REFS)
def test_two_of_one_name_would_write_one_column_and_are_refused(kind: str) -> None:
    one, other = REFS[kind], {**REFS[kind], "name": "b"}
    assert len(getattr(EmbedSettings.model_validate({kind: [one, other]}), kind)) == 2
    with pytest.raises(ValidationError, match=f"two {kind} have the same name"):
        EmbedSettings.model_validate({kind: [one, one]})


def test_one_place_stands_for_a_list_of_one() -> None:
    assert EmbedSettings.model_validate({"input": "a"}) == EmbedSettings.model_validate({"input": ["a"]})


def test_a_score_rule_bounds_something() -> None:
    with pytest.raises(ValidationError, match="needs min, max or top_share"):
        ScoreRule(score="similarity")
    assert ScoreRule(min=0.0).min == 0.0


def test_a_full_covariance_is_of_one_set() -> None:
    with pytest.raises(ValidationError, match="covariance full needs num_clusters 1"):
        ShiftSettings(covariance="full", num_clusters=2)
    assert ShiftSettings(covariance="full", num_clusters=1).num_clusters == 1
