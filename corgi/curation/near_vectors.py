"""Semantic duplicates over all blocks, as SemDeDup (Abbas et al., arXiv 2303.09540).

Centroids are fitted to a sample of the rows. Each row belongs to its two nearest clusters, so that few copies are missed at the
border between two clusters. Rows of one cluster whose cosine reaches the bound form pairs, and all pairs together are decided in
order of precedence. For given centroids the result depends only on the vectors: a whole cluster is compared in one call, in order
of rank, whatever the number of parts and the order of calls. A row is dropped only for an earlier row of its cluster that stays.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from corgi.curation.block import Block, BlockPlan
from corgi.curation.decision import decided_rows, noted
from corgi.curation.exchange import Columns, cut, exchanged, joined
from corgi.curation.parts import PROCESS_BYTES
from corgi.curation.precedence import Pairs, ordered, splits_of
from corgi.curation.whole_set import KEPT, Reasons, WholeSet
from corgi.flow.tasks import Ref, values_of, wait_for
from corgi.settings.clip import CurateSettings
from corgi.statistics.clusters import spherical_kmeans
from corgi.tables.embedded import vectors_of
from corgi.tables.store import Store

MAX_CLUSTERS = 50_000
_FIT_ROWS_PER_CLUSTER = 64
_MAX_FIT_ROWS = 200_000
_FIT_ITERATIONS = 10
_HOMES = 2
_BLOCK_ROWS = 1024

Vectors = Float[np.ndarray, "rows dim"]


@dataclass(frozen=True)
class SemanticRule:
    """The definition of a semantic copy: the smallest cosine, and whether the two rows must be of different splits."""

    cosine: float
    across_splits: bool = False


def semantic_rows(whole: WholeSet, settings: CurateSettings) -> list[Ref]:
    """Return the numbers of the rows whose vector is near that of an earlier row that stays, as results of calls."""
    assert settings.semantic_cosine is not None
    rule = SemanticRule(settings.semantic_cosine, settings.duplicates == "across_splits")
    left = values_of([whole.calls.start(num_left, reasons) for reasons in whole.reasons], "curate vectors")
    if not sum(left):
        return []
    num_clusters = clusters_of(sum(left), settings.semantic_cluster_rows)
    centroids = whole.calls.start(fitted, num_clusters, settings.seed, *_samples(whole, left, num_clusters))
    sources = [
        (whole.root, block, reasons, number, centroids)
        for plan, block, reasons in zip(whole.plans, whole.blocks, whole.reasons, strict=True)
        for number in range(len(plan.counts))
    ]
    num_parts = _num_parts(whole, sum(left), centroids, num_clusters)
    parts = exchanged(whole.calls, sources, cluster_pieces, num_parts, "curate clusters")
    found = [whole.calls.start_each(cluster_pairs, 2, rule, *pieces) for pieces in parts]
    wait_for([note for _, note in found], "curate near vectors")
    return [decided_rows(whole, found)]


def clusters_of(num_rows: int, cluster_rows: int) -> int:
    """Return the number of clusters such that each has about `cluster_rows` rows."""
    return max(1, min(MAX_CLUSTERS, num_rows // cluster_rows))


def num_left(reasons: Reasons) -> int:
    """Return the number of rows without a reason so far."""
    return int((reasons == KEPT).sum())


def _num_parts(whole: WholeSet, num_rows: int, centroids: Ref, num_clusters: int) -> int:
    """Return the number of parts of the clusters, such that one call has memory for three copies of a part."""
    (dim,) = values_of([whole.calls.start(width, centroids)], "curate centroids")
    held = 3 * _HOMES * num_rows * dim * 4
    by_memory = -(-held // (whole.calls.memory - PROCESS_BYTES)) if whole.calls.memory else 1
    return min(num_clusters, max(whole.num_parts, by_memory))


def width(centroids: Float[np.ndarray, "k dim"]) -> int:
    """Return the number of dimensions of centroids."""
    return centroids.shape[1]


def _samples(whole: WholeSet, left: Sequence[int], num_clusters: int) -> list[Ref]:
    """Return, block by block, the vectors of evenly spaced remaining rows, enough to fit the centroids."""
    total = sum(left)
    wanted = max(num_clusters, min(total, _MAX_FIT_ROWS, _FIT_ROWS_PER_CLUSTER * num_clusters))
    chosen = np.linspace(0, total - 1, wanted).astype(np.int64)
    starts = np.cumsum([0, *left])
    places = [
        chosen[np.searchsorted(chosen, low) : np.searchsorted(chosen, high)] - low
        for low, high in itertools.pairwise(starts)
    ]
    told = zip(whole.blocks, whole.reasons, places, strict=True)
    return [whole.calls.start(sampled, whole.root, *given) for given in told]


def sampled(root: str, block: Block, reasons: Reasons, places: Int[np.ndarray, "m"]) -> list[Vectors]:
    """Return the vectors of the remaining rows at these indices among the remaining rows, shard by shard."""
    rows = np.flatnonzero(reasons == KEPT)[places]
    found = []
    for number, (first, last) in enumerate(_bounds(block.plan)):
        inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)] - first
        if len(inside):
            found.append(_vectors(root, block.plan, number)[inside])
    return found


def fitted(num_clusters: int, seed: int, *samples: Sequence[Vectors]) -> Float[np.ndarray, "k dim"]:
    """Return the centroids fitted to a sample."""
    rows = np.concatenate([part for parts in samples for part in parts])
    return spherical_kmeans(rows, num_clusters, _FIT_ITERATIONS, seed)


def homes(rows: Vectors, centroids: Float[np.ndarray, "k dim"]) -> Int[np.ndarray, "rows homes"]:
    """Return each row's two nearest clusters, or the only cluster."""
    number = min(_HOMES, len(centroids))
    found = [np.zeros((0, number), np.int64)]
    for start in range(0, len(rows), _BLOCK_ROWS):
        score = rows[start : start + _BLOCK_ROWS] @ centroids.T
        found.append(np.argsort(-score, axis=1, kind="stable")[:, :number])
    return np.concatenate(found)


def cluster_pieces(
    root: str,
    block: Block,
    reasons: Reasons,
    number: int,
    centroids: Float[np.ndarray, "k dim"],
    num_parts: int,
) -> list[Columns]:
    """Return cluster, rank and vector of the remaining rows of a block's shard, once per cluster of a row, by part of the clusters."""
    first, last = list(_bounds(block.plan))[number]
    rows = np.flatnonzero(reasons[first:last] == KEPT)
    vectors = _vectors(root, block.plan, number)[rows]
    cluster = homes(vectors, centroids)
    repeated = np.repeat(np.arange(len(rows)), cluster.shape[1])
    flat = cluster.ravel()
    return cut(flat % num_parts, num_parts, flat, block.rank[first:last][rows][repeated], vectors[repeated])


def cluster_pairs(rule: SemanticRule, *pieces: Columns) -> tuple[Pairs, tuple[int, Int[np.ndarray, "cuts"]]]:
    """Return the pairs within each cluster of a part, and their note."""
    cluster, rank, vectors = joined(pieces)
    order = np.lexsort((rank, cluster))
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    found = [np.zeros((0, 2), np.int64)]
    for rows in np.split(order, starts[1:]):
        near = near_vectors(vectors[rows], rule.cosine)
        found.append(np.stack([rank[rows[near[:, 0]]], rank[rows[near[:, 1]]]], axis=1))
    pairs = np.concatenate(found)
    if rule.across_splits:
        pairs = pairs[splits_of(pairs[:, 0]) != splits_of(pairs[:, 1])]
    pairs = ordered(pairs[:, 0], pairs[:, 1])
    return pairs, noted(pairs)


def near_vectors(rows: Vectors, cosine: float) -> Int[np.ndarray, "pairs 2"]:
    """Return the pairs of rows with at least that cosine, the earlier row first."""
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        near = block @ rows[: start + len(block)].T >= cosine
        near &= np.arange(near.shape[1]) < np.arange(start, start + len(block))[:, None]
        later, earlier = np.nonzero(near)
        found.append(np.stack([earlier, later + start], axis=1))
    return np.concatenate(found)


def _bounds(plan: BlockPlan) -> Iterator[tuple[int, int]]:
    """Yield the first and the end (exclusive) row of each shard of a block."""
    ends = np.cumsum([0, *plan.counts]).tolist()
    yield from itertools.pairwise(ends)


def _vectors(root: str, plan: BlockPlan, number: int) -> Vectors:
    store = Store(root)
    return vectors_of(store.read(store.read_shard(plan.embed[number]), "image_embeddings"), "image")
