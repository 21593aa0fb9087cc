"""Curate as it was before its rows were cut into parts: all rows in memory. What the stage's tests compare its selections with.

Kept as it stood at 5de86c1, score rules to domain cap. Names of what it reads have changed, and one fault is mended: where an
earlier rule had dropped rows, `exact_copies` took the last rows in order for copies, as many as had been dropped.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from corgi.curation.block import rules
from corgi.curation.perceptual import HASH_BITS
from corgi.curation.precedence import TRAIN
from corgi.download.rules import placeholders
from corgi.settings.clip import CurateSettings, ScoreRule
from corgi.settings.errors import InputError
from corgi.tables.schema import Reason

_TOP_DOMAINS = 10


@dataclass(frozen=True)
class Rows:
    """What the rules look at. `split` counts from test; `scores` hold NaN if a row has none; `domain` is -1 if there is no url."""

    uid: np.ndarray
    split: Int[np.ndarray, "n"]
    sha256: UInt64[np.ndarray, "n 2"]
    phash: UInt64[np.ndarray, "n"]
    has_phash: Bool[np.ndarray, "n"]
    domain: Int[np.ndarray, "n"]
    domains: Sequence[str]
    scores: dict[str, Float[np.ndarray, "n"]]

    @property
    def rank(self) -> Int[np.ndarray, "n"]:
        """Return each row's rank in the order of precedence: by split, then by uid."""
        found = np.empty(len(self.uid), np.int64)
        found[np.lexsort((self.uid, self.split))] = np.arange(len(self.uid))
        return found


@dataclass
class Verdict:
    """Each row's reason (index into `reasons`, -1 for kept), and what was found on the way."""

    reason: Int[np.ndarray, "n"]
    facts: dict[str, Any] = field(default_factory=dict)
    reasons = tuple(Reason)

    @property
    def kept(self) -> Bool[np.ndarray, "n"]:
        """Return which rows are not dropped so far."""
        return self.reason < 0

    def drop(self, rows: Bool[np.ndarray, "n"], reason: Reason) -> None:
        """Give a reason to the rows that have none yet."""
        self.reason[rows & self.kept] = self.reasons.index(reason)


def judge(rows: Rows, settings: CurateSettings) -> Verdict:
    """Apply score rules, then duplicates, then the cap, each to the rows that are left.

    Raises:
        InputError: a rule names a score that is not stored, or the domain cap cannot be kept.

    """
    verdict = Verdict(np.full(len(rows.uid), -1, np.int16))
    if settings.placeholder_min_urls is not None:
        digests = [digest.tobytes().hex() for digest in rows.sha256]
        frequent = placeholders(Counter(digests), settings.placeholder_min_urls)
        verdict.drop(np.array([digest in frequent for digest in digests], bool), Reason.PLACEHOLDER)
    for rule in rules(settings):
        _apply(rule, rows, verdict)
    _drop_copies(rows, settings, verdict)
    if settings.max_domain_share is not None:
        left = np.flatnonzero(verdict.kept)
        gone, cap = capped(rows.domain[left], rows.rank[left], settings.max_domain_share)
        dropped = np.zeros(len(rows.uid), bool)
        dropped[left[gone]] = True
        verdict.drop(dropped, Reason.DOMAIN_CAP)
        verdict.facts |= {"rows_a_domain": cap, "largest_domains": _largest(rows, verdict)}
    return verdict


def threshold(rule: ScoreRule, values: Float[np.ndarray, "n"], split: Int[np.ndarray, "n"]) -> float:
    """Return the smallest score a rule keeps; a share is taken of the train rows that have the score."""
    lowest = -np.inf if rule.min is None else rule.min
    known = values[(split == TRAIN) & ~np.isnan(values)]
    if rule.top_share is None or not len(known):
        return lowest
    number = max(1, int(np.floor(rule.top_share * len(known))))
    return max(lowest, float(np.partition(known, len(known) - number)[len(known) - number]))


def _apply(rule: ScoreRule, rows: Rows, verdict: Verdict) -> None:
    values = rows.scores[rule.score]
    lowest = threshold(rule, values, rows.split)
    highest = np.inf if rule.max is None else rule.max
    low = values < lowest if rule.top_share is not None else values < np.float32(lowest)
    reason = Reason.LOW_SIMILARITY if rule.score == "similarity" else Reason.LOW_SCORE
    verdict.drop(low | (values > highest), reason)
    if rule.top_share is not None:
        verdict.facts[f"{rule.score}_threshold"] = lowest


def _drop_copies(rows: Rows, settings: CurateSettings, verdict: Verdict) -> None:
    rank, across = rows.rank, settings.duplicates == "across_splits"
    if settings.exact_duplicates:
        left = np.flatnonzero(verdict.kept)
        gone = exact_copies(rows.sha256[left], rank[left])
        verdict.drop(_mask(rows, left[gone]), Reason.EXACT_DUPLICATE)
    if settings.perceptual_distance is not None:
        left = np.flatnonzero(verdict.kept & rows.has_phash)
        gone = perceptual_copies(
            rows.phash[left], rows.split[left], rank[left], settings.perceptual_distance, across
        )
        verdict.drop(_mask(rows, left[gone]), Reason.PERCEPTUAL_DUPLICATE)


def _mask(rows: Rows, chosen: Int[np.ndarray, "m"]) -> Bool[np.ndarray, "n"]:
    mask = np.zeros(len(rows.uid), bool)
    mask[chosen] = True
    return mask


def _largest(rows: Rows, verdict: Verdict) -> dict[str, float]:
    """Return the shares of the kept rows that the largest domains hold."""
    kept = rows.domain[verdict.kept]
    counts = np.bincount(kept[kept >= 0], minlength=len(rows.domains))
    best = np.argsort(-counts, kind="stable")[:_TOP_DOMAINS]
    return {str(rows.domains[int(k)]): float(counts[k] / len(kept)) for k in best if counts[k]}


def exact_copies(digest: UInt64[np.ndarray, "n 2"], rank: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Return which rows have the digest of a row of lower rank."""
    _, group = np.unique(digest, axis=0, return_inverse=True)
    first = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max, np.int64)
    np.minimum.at(first, group.ravel(), rank)
    return rank > first[group.ravel()]


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


def capped(
    domain: Int[np.ndarray, "n"], rank: Int[np.ndarray, "n"], share: float
) -> tuple[Bool[np.ndarray, "n"], int]:
    """Return which rows go so that no domain holds more than a share of what stays, and the rows a domain may keep.

    A domain keeps its rows of lowest rank; rows of domain -1 (no url) always stay, and count.

    Raises:
        InputError: there are too few domains for the share.

    """
    named = domain >= 0
    counts = np.bincount(domain[named]) if named.any() else np.zeros(0, np.int64)
    rest = int((~named).sum())
    low, high = 1, int(counts.max(initial=1))
    if not _fits(counts, rest, low, share) and len(counts):
        raise InputError(
            f"curate.max_domain_share={share} cannot be kept: the rows come from {int((counts > 0).sum())} registered domains; "
            "committed work is safe; raise the share or leave it out"
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(counts, rest, middle, share) else (low, middle - 1)
    order = np.lexsort((rank, domain))
    starts = np.searchsorted(domain[order], domain[order], side="left")
    gone = np.zeros(len(domain), bool)
    gone[order] = np.arange(len(order)) - starts >= low
    return gone & named, low


def _fits(counts: Int[np.ndarray, "domains"], rest: int, cap: int, share: float) -> bool:
    kept = np.minimum(counts, cap)
    return int(kept.max(initial=0)) <= share * (int(kept.sum()) + rest)
