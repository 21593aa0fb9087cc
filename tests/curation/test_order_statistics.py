"""The k-th smallest by passes of counts is that of sorting, whatever the parts."""

import numpy as np
import pytest

from corgi.curation.order_statistics import (
    SCORE_BITS,
    digit_counts,
    kth_smallest,
    ordered_keys,
    values_of_keys,
)


@pytest.mark.parametrize("num_parts", [1, 4, 64])
def test_law_the_kth_smallest_of_each_group_is_that_of_sorting(num_parts: int) -> None:
    generator = np.random.default_rng(num_parts)
    keys = generator.integers(0, 2**42, 500).astype(np.uint64)
    keys[:100] = keys[0]
    groups = generator.integers(0, 3, 500)
    part = generator.integers(0, num_parts, 500)

    def count(prefixes: np.ndarray, shift: int) -> np.ndarray:
        chosen = (part == number for number in range(num_parts))
        return np.sum([digit_counts(keys[rows], groups[rows], prefixes, shift) for rows in chosen], axis=0)

    for place in (1, 2, 50, 100):
        found = kth_smallest(lambda sizes, k=place: np.full(len(sizes), k), 3, 44, count)
        expected = [np.sort(keys[groups == group])[place - 1] for group in range(3)]
        assert found.tolist() == expected


def test_law_keys_of_scores_are_in_their_order_and_lead_back() -> None:
    values = np.array([-np.inf, -2.5, -1e-30, 0.0, 1e-30, 0.1, 1.0, 3e38, np.inf], np.float32)
    keys = ordered_keys(values)
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    assert int(keys.max()) < 2**SCORE_BITS
    np.testing.assert_array_equal(values_of_keys(keys), values)
    assert ordered_keys(np.array([-0.0], np.float32)) == ordered_keys(np.array([0.0], np.float32))


def test_a_group_without_keys_is_told_by_its_size() -> None:
    seen = []

    def place_of(sizes: np.ndarray) -> np.ndarray:
        seen.append(sizes.tolist())
        return np.maximum(sizes, 1)

    keys, groups = np.array([3, 9], np.uint64), np.array([0, 0])
    found = kth_smallest(place_of, 2, 11, lambda prefixes, shift: digit_counts(keys, groups, prefixes, shift))
    assert seen == [[2, 0]]
    assert found[0] == 9
