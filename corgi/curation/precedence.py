"""The order of precedence of rows, and the decision: of two copies the earlier stays, and only a row that stays removes another.

Rows of test come before those of val, and those before train, so that no train picture has a copy among the pictures used for
evaluation. Within a split rows are ordered by uid. Shards are consecutive ranges of uids, so a row's number over all shards
gives its order; its rank has the split in the bits above that number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from corgi.tables.schema import Split

SPLITS = (Split.TEST, Split.VAL, Split.TRAIN)
"""In order of precedence: of two copies one in test stays before one in val, and that before one in train."""
TRAIN = SPLITS.index(Split.TRAIN)
ROW_BITS = 40
RANK_BITS = ROW_BITS + 2
MAX_PAIRS = 2**20
"""Number of pairs that are decided at a time."""
_ROW_MASK = (1 << ROW_BITS) - 1
_CUTS_PER_PIECE = 256

Pairs = Int[np.ndarray, "pairs 2"]
"""Ranks of two copies, that of the earlier row first."""


def ranks(split: Int[np.ndarray, "n"], rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Return the ranks of rows by their number over all shards and their split, counted from test."""
    return (split.astype(np.int64) << ROW_BITS) | rows


def rows_of(rank: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Return the numbers over all shards of the rows that have these ranks."""
    return rank & _ROW_MASK


def splits_of(rank: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Return the splits, counted from test, of the rows that have these ranks."""
    return rank >> ROW_BITS


def ordered(left: Int[np.ndarray, "n"], right: Int[np.ndarray, "n"]) -> Pairs:
    """Return pairs of ranks with the lower first, sorted by the higher."""
    pairs = np.stack([np.minimum(left, right), np.maximum(left, right)], axis=1)
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


@dataclass(frozen=True)
class Piece:
    """Some of the pairs, sorted by the rank of the later row: their number, evenly spaced ranks of later rows, and a function that reads them."""

    size: int
    cuts: Int[np.ndarray, "cuts"]
    read: Callable[[], Any]


def cuts_of(pairs: Pairs) -> Int[np.ndarray, "cuts"]:
    """Return evenly spaced ranks of the later rows."""
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), _CUTS_PER_PIECE)).astype(np.int64)
    return pairs[chosen, 1]


def decided(pieces: Sequence[Piece], num_rows: int, max_pairs: int = MAX_PAIRS) -> Int[np.ndarray, "gone"]:
    """Return the numbers of the rows that are a copy of an earlier row that stays, in ascending order.

    One byte per row and about `max_pairs` pairs are in memory, however many pairs there are: pairs are decided in the order of
    their later rows, so that all rows before a row are decided when it is.
    """
    gone: UInt8[np.ndarray, "n"] = np.zeros(num_rows, np.uint8)
    flags = gone.data
    for low, high in _ranges(pieces, max_pairs):
        pairs = np.concatenate([_inside(piece.read(), low, high) for piece in pieces])
        pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
        earlier, later = rows_of(pairs[:, 0]).tolist(), rows_of(pairs[:, 1]).tolist()
        for first, second in zip(earlier, later, strict=True):
            if not flags[first]:
                flags[second] = 1
    return np.flatnonzero(gone)


def _ranges(pieces: Sequence[Piece], max_pairs: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of ranks, in order, with about `max_pairs` pairs each."""
    total = sum(piece.size for piece in pieces)
    if not total:
        return
    cuts = np.concatenate([piece.cuts for piece in pieces])
    weights = np.concatenate([np.full(len(piece.cuts), piece.size / len(piece.cuts)) for piece in pieces])
    order = np.argsort(cuts, kind="stable")
    up_to = np.cumsum(weights[order])
    wanted = np.arange(1, -(-total // max_pairs)) * max_pairs
    inner = np.unique(cuts[order][np.searchsorted(up_to, wanted).clip(max=len(cuts) - 1)])
    yield from pairwise([0, *inner.tolist(), 1 << RANK_BITS])


def _inside(pairs: Pairs, low: int, high: int) -> Pairs:
    first, last = np.searchsorted(pairs[:, 1], [low, high])
    return pairs[first:last]
