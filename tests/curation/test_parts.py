"""Parts keep each call within its memory, however many rows there are."""

import pytest

from corgi.curation.parts import MAX_PARTS, call_memory, needed_bytes, num_parts, pairs_line, part_rows
from corgi.settings.clip import CurateSettings
from corgi.settings.errors import SettingsError


@pytest.mark.parametrize("num_rows", [0, 1, 1000, 10**6, 10**7, 2 * 10**7, 3 * 10**8])
@pytest.mark.parametrize("parts", [1, 4, 64])
def test_law_parts_hold_all_rows_and_a_call_fits(num_rows: int, parts: int) -> None:
    settings = CurateSettings(parts=parts)
    assert part_rows(num_rows, settings) * num_parts(num_rows, settings) >= num_rows
    assert min(parts, max(1, num_rows)) <= num_parts(num_rows, settings) + 1
    assert num_parts(num_rows, settings) <= MAX_PARTS
    assert needed_bytes(num_rows, settings) <= 2**30
    assert call_memory(num_rows, settings) == needed_bytes(num_rows, settings)


def test_law_a_call_needs_no_more_when_rows_are_doubled() -> None:
    settings = CurateSettings()
    assert needed_bytes(2 * 10**7, settings) <= 1.1 * needed_bytes(10**7, settings)


def test_too_little_memory_for_the_rows_is_one_line_that_says_how_much() -> None:
    with pytest.raises(
        SettingsError, match=r"task_memory=0\.5 GiB is too little .* set it to \d+GiB"
    ) as told:
        call_memory(4 * 10**8, CurateSettings.model_validate({"task_memory": "512MiB"}))
    assert "\n" not in str(told.value)


def test_the_pairs_expected_are_told_and_too_many_are_one_line() -> None:
    assert pairs_line(10**7, CurateSettings()) is None
    assert "15 keys of 2 of 6 bands" in str(pairs_line(10**7, CurateSettings(perceptual_distance=4)))
    for distance in range(7):
        assert pairs_line(4 * 10**8, CurateSettings(perceptual_distance=distance))
    with pytest.raises(SettingsError, match=r"distance=16 compares about .* pairs of 10,000,000") as told:
        pairs_line(10**7, CurateSettings(perceptual_distance=16))
    assert "\n" not in str(told.value)
