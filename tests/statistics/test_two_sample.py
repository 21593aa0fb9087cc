"""The cosine of two samples of one condition, in both weightings."""

import numpy as np
import pytest

from corgi.statistics.two_sample import groups_of, two_sample_cosine
from corgi.unit_vectors import unit_rows

ROWS = unit_rows(np.random.default_rng(3).normal(size=(9, 4)))
LABEL = np.array([0, 0, 0, 0, 1, 1, 2, 3, 3])


def cosines(value: int) -> list[float]:
    """Return the cosines of all ordered pairs of different rows of a label."""
    rows = ROWS[value == LABEL]
    return [float(a @ b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]


@pytest.mark.law
def test_law_each_pair_or_each_group_has_the_same_weight() -> None:
    by_label = [cosines(value) for value in (0, 1, 3)]
    pairs = float(np.mean(np.concatenate(by_label)))
    groups = float(np.mean([np.mean(found) for found in by_label]))
    assert abs(pairs - groups) > 0.01
    assert two_sample_cosine(groups_of(ROWS, LABEL), each="pair") == pytest.approx(pairs, abs=1e-12)
    assert two_sample_cosine(groups_of(ROWS, LABEL), each="group") == pytest.approx(groups, abs=1e-12)


def test_collapse_is_one_and_single_rows_do_not_count() -> None:
    collapsed = np.repeat(ROWS[:1], 8, axis=0)
    for each in ("group", "pair"):
        assert two_sample_cosine([collapsed, ROWS[1:2]], each) == pytest.approx(1)
        assert two_sample_cosine([np.eye(4)], each) == pytest.approx(0)
        assert two_sample_cosine([ROWS[:1]], each) is None
    assert list(groups_of(ROWS, np.arange(9))) == []
    assert list(groups_of(ROWS[:0], LABEL[:0])) == []
