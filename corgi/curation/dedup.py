"""Which rows are copies of others: equal bytes, phashes few bits apart, image vectors of high cosine.

Rows are taken in an order of precedence, and a row goes when one that comes before it, and stays, is its copy. Held-out
rows come before train rows, so that no train picture has a copy among those that measure it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from corgi.statistics.clusters import spherical_kmeans

HASH_BITS = 64
_LEAST_BITS = 8
"""A phash with fewer bits set, or unset, belongs to a flat image and carries no information."""
_FIT_ROWS_PER_CLUSTER = 64
_MAX_FIT_ROWS = 200_000
_BATCH_BYTES = 2**30
_BLOCK_ROWS = 1024


def exact_copies(digest: UInt64[np.ndarray, "n 2"], rank: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Return which rows have the digest of a row of lower rank; ranks are a permutation."""
    _, group = np.unique(digest, axis=0, return_inverse=True)
    first = np.full(int(group.max(initial=-1)) + 1, len(rank), np.int64)
    np.minimum.at(first, group.ravel(), rank)
    return rank > first[group.ravel()]


def phash_values(texts: Sequence[str | None]) -> tuple[UInt64[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Return phashes as integers, and which of them can be compared: there, 16 hex digits, and not of a flat picture."""
    values = np.zeros(len(texts), np.uint64)
    known = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        if text and len(text) == HASH_BITS // 4:
            values[row], known[row] = int(text, 16), True
    bits = np.bitwise_count(values)
    return values, known & (bits >= _LEAST_BITS) & (bits <= HASH_BITS - _LEAST_BITS)


def hamming_pairs(values: UInt64[np.ndarray, "n"], distance: int) -> Int[np.ndarray, "pairs 2"]:
    """Return all pairs of rows whose hashes differ in at most `distance` bits, lower row first.

    Two such hashes agree in one of distance + 1 bands at least, so only rows that share a band are compared.
    """
    found = [np.zeros((0, 2), np.int64)]
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        mask = np.uint64((1 << (high - low)) - 1)
        band = (values >> np.uint64(low)) & mask
        order = np.argsort(band, kind="stable")
        ends = np.searchsorted(band[order], band[order], side="right")
        active = np.arange(len(values))
        for step in range(1, len(values)):
            active = active[active + step < ends[active]]
            if not len(active):
                break
            left, right = order[active], order[active + step]
            near = np.bitwise_count(values[left] ^ values[right]) <= distance
            found.append(np.stack([left[near], right[near]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0) if len(pairs) else pairs


def perceptual_copies(
    values: UInt64[np.ndarray, "n"],
    split: Int[np.ndarray, "n"],
    rank: Int[np.ndarray, "n"],
    distance: int,
    across_splits: bool = False,
) -> Bool[np.ndarray, "n"]:
    """Return which rows are near a row that comes before them and stays; `across_splits`: in another split only.

    Rows of one hash and one split share every neighbour, so they are decided as one.
    """
    order = np.lexsort((rank, split, values))
    same = (np.diff(values[order]) == 0) & (np.diff(split[order]) == 0)
    starts = np.concatenate([[True], ~same])[: len(order)]
    node = np.empty(len(order), np.int64)
    node[order] = np.cumsum(starts) - 1
    first = order[starts]
    gone = _decided(values[first], split[first], rank[first], distance, across_splits)[node]
    if not across_splits:
        is_first = np.zeros(len(rank), bool)
        is_first[first] = True
        gone |= ~is_first
    return gone


def _decided(
    values: UInt64[np.ndarray, "n"],
    split: Int[np.ndarray, "n"],
    rank: Int[np.ndarray, "n"],
    distance: int,
    across_splits: bool,
) -> Bool[np.ndarray, "n"]:
    distinct, group = np.unique(values, return_inverse=True)
    members: list[list[int]] = [[] for _ in distinct]
    for row, value in enumerate(group.ravel().tolist()):
        members[value].append(row)
    near = [(a, b) for rows in members for a in rows for b in rows if a < b]
    for left, right in hamming_pairs(distinct, distance).tolist():
        near += [(a, b) for a in members[left] for b in members[right]]
    ordered = sorted((sorted(pair, key=lambda row: rank[row]) for pair in near), key=lambda p: rank[p[1]])
    gone = np.zeros(len(values), bool)
    for earlier, later in ordered:
        if not gone[earlier] and not (across_splits and split[earlier] == split[later]):
            gone[later] = True
    return gone


@dataclass(frozen=True)
class Vectors:
    """Image vectors stored in parts on disk: the rows of each part, and how to read one as unit rows."""

    counts: Sequence[int]
    read: Callable[[int], Float[np.ndarray, "rows dim"]]

    def parts(self) -> Iterator[tuple[int, Float[np.ndarray, "rows dim"]]]:
        """Yield each part's first row and its vectors."""
        start = 0
        for part, count in enumerate(self.counts):
            if count:
                yield start, self.read(part)
            start += count


def semantic_copies(
    vectors: Vectors,
    candidates: Bool[np.ndarray, "n"],
    split: Int[np.ndarray, "n"],
    rank: Int[np.ndarray, "n"],
    rule: "SemanticRule",
) -> Bool[np.ndarray, "n"]:
    """Return which candidates have a cosine of at least `rule.cosine` to a candidate that comes before them and stays.

    SemDeDup: rows are compared within clusters of about `rule.cluster_rows`. Each takes part in its two nearest, so that
    a border between two hides few copies. Memory holds one batch of clusters.
    """
    gone = np.zeros(len(candidates), bool)
    if not candidates.any():
        return gone
    num_clusters = max(1, int(candidates.sum()) // rule.cluster_rows)
    centroids = spherical_kmeans(_sample(vectors, candidates, num_clusters), num_clusters, 10, rule.seed)
    homes = _homes(vectors, candidates, centroids)
    members = [np.flatnonzero((homes == k).any(axis=1)) for k in range(num_clusters)]
    for batch in _batches([len(rows) for rows in members], 4 * centroids.shape[1]):
        wanted = np.unique(np.concatenate([members[k] for k in batch]))
        loaded = np.concatenate([part[_inside(wanted, start, len(part))] for start, part in vectors.parts()])
        for k in batch:
            rows = members[k][~gone[members[k]]]
            rows = rows[np.argsort(rank[rows])]
            block = loaded[np.searchsorted(wanted, rows)]
            gone[rows[_near_earlier(block, split[rows], rule)]] = True
    return gone


@dataclass(frozen=True)
class SemanticRule:
    """What counts as a semantic copy and where it is looked for."""

    cosine: float
    cluster_rows: int = 1000
    across_splits: bool = False
    seed: int = 0


def _near_earlier(
    rows: Float[np.ndarray, "n dim"], split: Int[np.ndarray, "n"], rule: SemanticRule
) -> Int[np.ndarray, "gone"]:
    gone = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        near = block @ rows[: start + len(block)].T >= rule.cosine
        if rule.across_splits:
            near &= split[start : start + len(block), None] != split[None, : near.shape[1]]
        near &= np.arange(near.shape[1]) < np.arange(start, start + len(block))[:, None]
        for row in np.flatnonzero(near.any(axis=1)):
            gone[start + row] = bool((near[row] & ~gone[: near.shape[1]]).any())
    return np.flatnonzero(gone)


def _sample(
    vectors: Vectors, candidates: Bool[np.ndarray, "n"], num_clusters: int
) -> Float[np.ndarray, "m dim"]:
    """Return evenly spaced candidates, enough to place the centroids."""
    rows = np.flatnonzero(candidates)
    wanted = max(num_clusters, min(len(rows), _MAX_FIT_ROWS, _FIT_ROWS_PER_CLUSTER * num_clusters))
    chosen = rows[np.linspace(0, len(rows) - 1, wanted).astype(np.int64)]
    return np.concatenate([part[_inside(chosen, start, len(part))] for start, part in vectors.parts()])


def _homes(
    vectors: Vectors, candidates: Bool[np.ndarray, "n"], centroids: Float[np.ndarray, "k dim"]
) -> Int[np.ndarray, "n 2"]:
    """Return each candidate's two nearest clusters, -1 for the others."""
    homes = np.full((len(candidates), 2), -1, np.int32)
    number = min(2, len(centroids))
    for start, part in vectors.parts():
        for first in range(0, len(part), _BLOCK_ROWS):
            score = part[first : first + _BLOCK_ROWS] @ centroids.T
            best = np.argsort(-score, axis=1, kind="stable")[:, :number]
            homes[start + first : start + first + len(score), :number] = best
    homes[~candidates] = -1
    return homes


def _batches(sizes: Sequence[int], row_bytes: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    held = 0
    for k, size in enumerate(sizes):
        if found[-1] and (held + size) * row_bytes > _BATCH_BYTES:
            found.append([])
            held = 0
        found[-1].append(k)
        held += size
    return found


def _inside(rows: Int[np.ndarray, "m"], start: int, count: int) -> Int[np.ndarray, "inside"]:
    first, last = np.searchsorted(rows, [start, start + count])
    return rows[first:last] - start
