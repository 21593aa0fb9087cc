"""Workers, batches and stages of a training that fit together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corgi.settings.training import TrainingSettings

SMALL = st.integers(1, 6)


@given(st.integers(0, 6), SMALL, SMALL)
def test_law_every_worker_has_a_row_and_the_least_number_is_not_above_the_number(
    least: int, workers: int, batch: int
) -> None:
    try:
        TrainingSettings(min_workers=least, num_workers=workers, global_batch=batch)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == (least <= workers <= batch)


def test_only_what_is_split_can_be_offloaded() -> None:
    with pytest.raises(ValidationError, match="offload needs zero_stage 1, 2 or 3"):
        TrainingSettings(offload=True, zero_stage=0)
    assert TrainingSettings(offload=True, zero_stage=1).offload
