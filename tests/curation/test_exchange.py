"""Rows are cut by part and come together again; numbers of rows become flags of their blocks."""

import numpy as np
import pytest

from corgi.curation.block import BlockPlan
from corgi.curation.exchange import cut, exchanged, flags, joined
from corgi.flow.tasks import Tasks

pytestmark = pytest.mark.usefixtures("in_process")


def modulo(values: np.ndarray, num_parts: int) -> list[tuple[np.ndarray, ...]]:
    return cut(values % num_parts, num_parts, values, values * 10)


@pytest.mark.parametrize("num_parts", [1, 3, 50])
def test_law_each_row_is_in_the_piece_of_its_part_and_in_no_other(num_parts: int) -> None:
    sources = np.array_split(np.random.default_rng(0).permutation(200), 4)
    parts = exchanged(Tasks(), [(source,) for source in sources], modulo, num_parts, "x")
    assert len(parts) == num_parts
    for number, pieces in enumerate(parts):
        values, tens = joined(pieces)
        assert sorted(values.tolist()) == list(range(number, 200, num_parts))
        np.testing.assert_array_equal(tens, values * 10)


def test_flags_are_those_of_each_block() -> None:
    plans = [BlockPlan(0, (2, 1), ("", ""), ("", "")), BlockPlan(3, (2,), ("",), ("",))]
    found = flags(plans, [np.array([0, 4]), np.array([], np.int64), np.array([2])])
    assert [part.tolist() for part in found] == [[True, False, True], [False, True]]
