"""Semantic duplicates: near vectors are found across cluster borders, nothing else goes, and parts change nothing."""

import numpy as np
import pytest

from corgi.curation.decision import decide
from corgi.curation.exchange import cut
from corgi.curation.near_vectors import (
    SemanticRule,
    cluster_pairs,
    clusters_of,
    fitted,
    homes,
    near_vectors,
)
from corgi.curation.precedence import ranks

pytestmark = pytest.mark.usefixtures("in_process")
NUM_ROWS = 2000


def planted_vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows, a tenth of them near copies of an earlier row, and whose copy each is (-1: nobody's)."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(NUM_ROWS, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    owner = np.full(NUM_ROWS, -1)
    copies = generator.choice(np.arange(1000, NUM_ROWS), 200, replace=False)
    owner[copies] = generator.choice(1000, 200, replace=False)
    noise = generator.normal(size=(200, 32)) * 0.02
    rows[copies] = rows[owner[copies]] + noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), owner


def gone_rows(
    rows: np.ndarray, split: np.ndarray, rule: SemanticRule, num_parts: int = 1, num_shards: int = 1
) -> np.ndarray:
    """Return which rows go; shards hold consecutive rows, and pieces arrive in a random order."""
    centroids = fitted(clusters_of(len(rows), 60), 0, [rows])
    rank = ranks(split, np.arange(len(rows)))
    pieces = []
    for shard in np.array_split(np.arange(len(rows)), num_shards):
        cluster = homes(rows[shard], centroids)
        flat, repeated = cluster.ravel(), np.repeat(shard, cluster.shape[1])
        pieces.append(cut(flat % num_parts, num_parts, flat, rank[repeated], rows[repeated]))
    order = np.random.default_rng(num_parts).permutation(num_shards)
    found = [cluster_pairs(rule, *(pieces[shard][part] for shard in order)) for part in range(num_parts)]
    gone = np.zeros(len(rows), bool)
    gone[decide([pairs for pairs, _ in found], [note for _, note in found], len(rows))] = True
    return gone


def test_law_copies_are_found_across_cluster_borders_and_nothing_else_goes() -> None:
    rows, owner = planted_vectors()
    gone = gone_rows(rows, np.zeros(NUM_ROWS, int), SemanticRule(0.95))
    assert gone[owner >= 0].mean() >= 0.95
    assert not gone[owner < 0].any()


def test_law_parts_and_the_order_of_calls_change_nothing() -> None:
    rows, _ = planted_vectors(1)
    split = np.random.default_rng(2).integers(0, 3, NUM_ROWS)
    rule = SemanticRule(0.9)
    first = gone_rows(rows, split, rule)
    for num_parts, num_shards in ((4, 1), (7, 5), (33, 40)):
        np.testing.assert_array_equal(gone_rows(rows, split, rule, num_parts, num_shards), first)


def test_law_a_row_goes_only_for_an_earlier_one_that_stays() -> None:
    rows, _ = planted_vectors(3)
    split = np.random.default_rng(4).integers(0, 3, NUM_ROWS)
    gone = gone_rows(rows, split, SemanticRule(0.5))
    rank = ranks(split, np.arange(NUM_ROWS))
    near = rows @ rows.T >= 0.4999
    assert gone.any()
    for row in np.flatnonzero(gone):
        assert (near[row] & ~gone & (rank < rank[row])).any()


def test_only_copies_across_splits_go_where_that_is_asked() -> None:
    rows, owner = planted_vectors(1)
    split = np.random.default_rng(2).integers(0, 3, NUM_ROWS)
    rank = ranks(split, np.arange(NUM_ROWS))
    gone = gone_rows(rows, split, SemanticRule(0.95, across_splits=True))
    copies = np.flatnonzero(owner >= 0)
    straddling = split[copies] != split[owner[copies]]
    later = np.where(rank[copies] > rank[owner[copies]], copies, owner[copies])
    assert gone[later[straddling]].mean() >= 0.95
    assert not gone[later[~straddling]].any()


def test_law_near_vectors_are_all_pairs_of_that_cosine_whatever_the_block() -> None:
    rows, _ = planted_vectors(5)
    pairs = near_vectors(rows, 0.9)
    cosine = rows @ rows.T
    expected = np.argwhere(np.triu(cosine >= 0.9, 1))
    assert {tuple(pair) for pair in pairs.tolist()} == {tuple(pair) for pair in expected.tolist()}
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_clusters_hold_about_the_rows_asked_for_and_are_not_too_many() -> None:
    assert [clusters_of(rows, 1000) for rows in (1, 999, 5000, 10**9)] == [1, 1, 5, 50_000]
