"""Multi-index hashing finds all pairs within the distance, each once, with bounded candidates."""

import itertools
from math import comb

import numpy as np
import pytest

from corgi.curation.perceptual import (
    Banding,
    banding,
    candidates_per_row,
    expected_pairs,
    near_pairs,
    pairs_of_key,
    part_of,
    phash_values,
)


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def clustered(distance: int, generator: np.random.Generator) -> np.ndarray:
    """Return random hashes, and others that are up to distance + 3 bits from one of them."""
    values = [int(value) for value in generator.integers(0, 2**63, 40)]
    for value in values[:25]:
        number = int(generator.integers(0, distance + 4))
        values.append(flipped(value, generator.choice(64, number, replace=False).tolist()))
    return np.array(values, np.uint64)


def all_pairs(values: np.ndarray, distance: int) -> set[tuple[int, int]]:
    rows = itertools.combinations(range(len(values)), 2)
    return {(a, b) for a, b in rows if (int(values[a]) ^ int(values[b])).bit_count() <= distance}


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    """Return pairs without order; none may be there twice."""
    found = {(min(a, b), max(a, b)) for a, b in pairs.tolist()}
    assert len(found) == len(pairs)
    return found


@pytest.mark.parametrize("distance", [0, 1, 3, 6, 10, 16])
def test_law_all_pairs_within_the_distance_are_found_once(distance: int) -> None:
    values = clustered(distance, np.random.default_rng(distance))
    assert as_set(near_pairs(values, distance)) == all_pairs(values, distance)
    assert not len(near_pairs(values[:0], distance))


@pytest.mark.parametrize("bands_per_key", [1, 2, 3, 4])
def test_law_keys_of_any_number_of_bands_find_the_same(bands_per_key: int) -> None:
    values = clustered(4, np.random.default_rng(bands_per_key))
    edges = np.linspace(0, 64, 4 + bands_per_key + 1).astype(int).tolist()
    masks = [sum(1 << bit for bit in range(low, high)) for low, high in itertools.pairwise(edges)]
    bands = Banding(tuple(masks), bands_per_key)
    assert len(bands.keys) == comb(4 + bands_per_key, 4)
    found = [pairs_of_key(values, 4, bands, key) for key in bands.keys]
    assert as_set(np.concatenate(found)) == all_pairs(values, 4)


@pytest.mark.parametrize("max_block", [2, 8, 10_000])
def test_law_a_large_block_is_cut_by_its_other_bits_and_loses_no_pair(max_block: int) -> None:
    generator = np.random.default_rng(1)
    base = int(generator.integers(0, 2**63))
    values = np.array(
        [flipped(base, generator.choice(64, 3, replace=False).tolist()) for _ in range(80)], np.uint64
    )
    values = np.unique(values)
    assert as_set(near_pairs(values, 4, max_block=max_block)) == all_pairs(values, 4)


@pytest.mark.parametrize("num_parts", [1, 4, 7])
@pytest.mark.parametrize("mask", [(1 << 64) - 1, 0b1111 << 60, 0b1111])
def test_law_rows_with_equal_bits_are_of_one_part_and_others_spread(num_parts: int, mask: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 2000, np.uint64)
    part = part_of(values, mask, num_parts)
    by_bits: dict[int, set[int]] = {}
    for value, number in zip(values.tolist(), part.tolist(), strict=True):
        by_bits.setdefault(value & mask, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_bits.values())
    assert len(np.unique(part)) == num_parts


@pytest.mark.parametrize("distance", [0, 2, 4, 6])
@pytest.mark.parametrize("num_rows", [10**4, 10**6, 10**7, 4 * 10**8, 10**9])
def test_law_candidates_per_row_stay_bounded_as_rows_grow(distance: int, num_rows: int) -> None:
    bands = banding(num_rows, distance)
    assert candidates_per_row(num_rows, distance, 64, bands.per_key) < 200 + 12 * len(bands.keys)
    assert len(bands.bands) == distance + bands.per_key
    assert sum(bands.bands) == 2**64 - 1


def test_the_candidates_of_random_hashes_are_as_many_as_the_formula_says() -> None:
    values = np.random.default_rng(3).integers(0, 2**64, 20_000, np.uint64)
    bands = Banding((2**16 - 1, (2**16 - 1) << 16, (2**16 - 1) << 32, (2**16 - 1) << 48), 1)
    counted = 0
    for key in bands.keys:
        _, sizes = np.unique(values & np.uint64(bands.mask(key)), return_counts=True)
        counted += int((sizes * (sizes - 1) // 2).sum())
    assert counted == pytest.approx(20_000 * candidates_per_row(20_000, 3, 64, 1), rel=0.05)
    assert expected_pairs(20_000, 3) <= 20_000 * candidates_per_row(20_000, 3, 64, 1)


def test_hashes_that_say_nothing_are_not_compared() -> None:
    texts = ["f0f0f0f0f0f0f0f0", "", None, "0000000000000000", "8000000000000000", "ffffffffffffffff", "00"]
    values, known = phash_values(texts)
    assert known.tolist() == [True, False, False, False, False, False, False]
    assert int(values[0]) == 0xF0F0F0F0F0F0F0F0
