"""Copies: the earlier row stays, near ones are found whatever their bits or cluster, held-out rows are never doubled."""

import itertools

import numpy as np
import pytest

from corgi.curation.dedup import (
    SemanticRule,
    Vectors,
    exact_copies,
    hamming_pairs,
    perceptual_copies,
    phash_values,
    semantic_copies,
)


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def test_the_lowest_rank_of_equal_digests_stays() -> None:
    digest = np.array([[1, 1], [2, 2], [1, 1], [1, 2], [1, 1]], np.uint64)
    assert exact_copies(digest, np.array([3, 0, 1, 2, 4])).tolist() == [True, False, False, False, True]


@pytest.mark.law
@pytest.mark.parametrize("distance", [0, 1, 3, 6, 10])
def test_band_pairs_are_all_pairs_within_the_distance(distance: int) -> None:
    generator = np.random.default_rng(distance)
    values = [int(value) for value in generator.integers(0, 2**63, 40)]
    for value in values[:25]:
        number = int(generator.integers(0, distance + 4))
        values.append(flipped(value, generator.choice(64, number, replace=False).tolist()))
    expected = {
        (a, b)
        for a, b in itertools.combinations(range(len(values)), 2)
        if (values[a] ^ values[b]).bit_count() <= distance
    }
    found = hamming_pairs(np.array(values, np.uint64), distance)
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert not len(hamming_pairs(np.array([], np.uint64), distance))


def test_hashes_that_say_nothing_are_not_compared() -> None:
    texts = ["f0f0f0f0f0f0f0f0", "", None, "0000000000000000", "8000000000000000", "ffffffffffffffff", "00"]
    values, known = phash_values(texts)
    assert known.tolist() == [True, False, False, False, False, False, False]
    assert int(values[0]) == 0xF0F0F0F0F0F0F0F0


@pytest.mark.law
@pytest.mark.parametrize("across", [False, True])
def test_perceptual_copies_are_those_of_the_plain_rule(across: bool) -> None:
    """Compare with the rule written out: in order of rank, a row goes when it is near one that stays."""
    generator = np.random.default_rng(5)
    base = [int(value) for value in generator.integers(0, 2**63, 12)]
    values = [
        flipped(base[row % 12], generator.choice(64, int(generator.integers(0, 4)), replace=False).tolist())
        for row in range(150)
    ]
    split = generator.integers(0, 3, 150)
    rank = np.empty(150, int)
    rank[np.lexsort((generator.permutation(150), split))] = np.arange(150)
    gone = perceptual_copies(np.array(values, np.uint64), split, rank, 3, across)
    expected = np.zeros(150, bool)
    for row in np.argsort(rank):
        for other in np.flatnonzero((rank < rank[row]) & ~expected):
            near = (values[row] ^ values[other]).bit_count() <= 3
            if near and not (across and split[row] == split[other]):
                expected[row] = True
    np.testing.assert_array_equal(gone, expected)
    assert gone.any()
    assert not gone.all()


def planted_vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows, a tenth of them near copies of an earlier row, and whose copy each is (-1: nobody's)."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(2000, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    owner = np.full(2000, -1)
    copies = generator.choice(np.arange(1000, 2000), 200, replace=False)
    owner[copies] = generator.choice(1000, 200, replace=False)
    noise = generator.normal(size=(200, 32)) * 0.02
    rows[copies] = rows[owner[copies]] + noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), owner


@pytest.mark.law
def test_semantic_copies_are_found_across_cluster_borders_and_nothing_else_goes() -> None:
    rows, owner = planted_vectors()
    vectors = Vectors([700, 0, 1300], lambda part: rows[:700] if part == 0 else rows[700:])
    everyone, split = np.ones(2000, bool), np.zeros(2000, int)
    gone = semantic_copies(vectors, everyone, split, np.arange(2000), SemanticRule(0.95, 60))
    assert gone[owner >= 0].mean() >= 0.95
    assert not gone[owner < 0].any()
    first = np.zeros(2000, bool)
    first[:1000] = True
    nobody = semantic_copies(vectors, first, split, np.arange(2000), SemanticRule(0.95, 60))
    assert not nobody.any()
    assert not semantic_copies(vectors, ~everyone, split, np.arange(2000), SemanticRule(0.95)).any()


def test_only_copies_across_splits_go_where_that_is_asked() -> None:
    rows, owner = planted_vectors(1)
    vectors = Vectors([2000], lambda part: rows)
    split = np.random.default_rng(2).integers(0, 3, 2000)
    rank = np.empty(2000, int)
    rank[np.lexsort((np.arange(2000), split))] = np.arange(2000)
    gone = semantic_copies(vectors, np.ones(2000, bool), split, rank, SemanticRule(0.95, 2000, True))
    copies = np.flatnonzero(owner >= 0)
    straddling = split[copies] != split[owner[copies]]
    later = np.where(rank[copies] > rank[owner[copies]], copies, owner[copies])
    assert gone[later[straddling]].all()
    assert not gone[later[~straddling]].any()
    assert gone.sum() == straddling.sum()
