"""R@k against a ranking written out, and what must never count as found."""

import numpy as np
import pytest

from corgi.statistics.retrieval import recall
from corgi.unit_vectors import unit_rows


@pytest.mark.law
def test_law_recall_is_the_share_whose_own_row_ranks_within_k() -> None:
    generator = np.random.default_rng(0)
    queries, targets = (unit_rows(generator.normal(size=(40, 3))) for _ in range(2))
    cosines = [[float(query @ target) for target in targets] for query in queries]
    ranks = [sorted(row, reverse=True).index(row[own]) for own, row in enumerate(cosines)]
    found = recall(queries, targets, (1, 5, 10))
    assert found == {k: np.mean([rank < k for rank in ranks]) for k in (1, 5, 10)}


def test_ties_and_nan_count_against_the_query() -> None:
    eye = np.eye(8)
    assert recall(eye, eye, (1,)) == {1: 1.0}
    assert recall(np.full((8, 4), 0.5), np.full((8, 4), 0.5), (5,)) == {5: 0.0}
    assert recall(eye, np.full((8, 8), np.nan), (1, 5)) == {1: 0.0, 5: 0.0}
    one_broken = np.where(np.arange(8)[:, None] == 0, np.nan, eye)
    assert recall(one_broken, eye, (1,)) == {1: 7 / 8}
