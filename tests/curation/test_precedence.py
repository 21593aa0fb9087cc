"""Pairs are decided in order: a row goes only for an earlier one that stays, however many pairs are decided at a time."""

from functools import partial

import numpy as np
import pytest

from corgi.curation.precedence import (
    Piece,
    cuts_of,
    decided,
    ordered,
    ranks,
    rows_of,
    splits_of,
)


def random_pairs(seed: int, num_rows: int, num_pairs: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rank = ranks(generator.integers(0, 3, num_rows), np.arange(num_rows))
    ends = generator.integers(0, num_rows, (num_pairs, 2))
    ends = ends[ends[:, 0] != ends[:, 1]]
    return ordered(rank[ends[:, 0]], rank[ends[:, 1]])


def in_pieces(pairs: np.ndarray, owner: np.ndarray) -> list[Piece]:
    parts = [pairs[owner == number] for number in np.unique(owner)]
    return [Piece(len(part), cuts_of(part), partial(lambda held: held, part)) for part in parts]


def plainly(pairs: np.ndarray) -> set[int]:
    gone: set[int] = set()
    for later in np.unique(pairs[:, 1]):
        earlier = pairs[pairs[:, 1] == later, 0]
        if any(int(row) not in gone for row in rows_of(earlier)):
            gone.add(int(rows_of(later)))
    return gone


def test_law_a_rank_orders_by_split_then_row_and_tells_both() -> None:
    split, rows = np.array([2, 0, 1, 0]), np.array([0, 3, 2**39, 1])
    rank = ranks(split, rows)
    assert np.argsort(rank).tolist() == [3, 1, 2, 0]
    np.testing.assert_array_equal(rows_of(rank), rows)
    np.testing.assert_array_equal(splits_of(rank), split)


@pytest.mark.parametrize("max_pairs", [1, 7, 100, 10**6])
@pytest.mark.parametrize("num_pieces", [1, 5])
def test_law_the_decision_is_that_of_the_plain_rule(max_pairs: int, num_pieces: int) -> None:
    for seed in range(5):
        pairs = random_pairs(seed, 120, 150)
        owner = np.random.default_rng(seed).integers(0, num_pieces, len(pairs))
        gone = decided(in_pieces(pairs, owner), 120, max_pairs)
        assert set(gone.tolist()) == plainly(pairs)
        assert (np.diff(gone) > 0).all()


def test_no_pairs_remove_no_row() -> None:
    assert len(decided([], 10)) == 0


def test_few_pairs_are_held_at_a_time() -> None:
    """Each piece is read once per range of ranks, and a range holds about as many pairs as asked for."""
    pairs = random_pairs(0, 5000, 20_000)
    (piece,) = in_pieces(pairs, np.zeros(len(pairs)))
    reads = []
    counted = Piece(piece.size, piece.cuts, lambda: reads.append(1) or pairs)
    decided([counted], 5000, 1000)
    assert 15 <= len(reads) <= 20
