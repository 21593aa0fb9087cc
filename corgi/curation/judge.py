"""The rules of curate over all blocks: thresholds, equal bytes, near hashes, near vectors, the cap. The work is done in tasks.

The driver has only references to results, counts and thresholds; no row passes through it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

from corgi.curation.block import Block, rules
from corgi.curation.domain_cap import cap_domains
from corgi.curation.exact import exact_copies, placeholders
from corgi.curation.exchange import Columns, cut, exchanged, joined
from corgi.curation.near_hashes import perceptual_rows
from corgi.curation.near_vectors import semantic_rows
from corgi.curation.order_statistics import (
    SCORE_BITS,
    Counts,
    digit_counts,
    kth_smallest,
    ordered_keys,
    values_of_keys,
)
from corgi.curation.precedence import TRAIN, rows_of
from corgi.curation.whole_set import KEPT, Reasons, WholeSet, code_of
from corgi.flow.tasks import values_of
from corgi.settings.clip import CurateSettings, ScoreRule
from corgi.tables.schema import Reason


class Bound(NamedTuple):
    """The smallest and largest score that a rule keeps."""

    rule: ScoreRule
    lowest: float
    highest: float


def judge(whole: WholeSet, settings: CurateSettings) -> None:
    """Apply the score rules, then those of duplicates, then the cap, each to the rows that no earlier rule dropped.

    Raises:
        InputError: the domain cap cannot be kept.

    """
    bounds = _bounds(whole, settings)
    whole.reasons = [whole.calls.start(scored, block, bounds) for block in whole.blocks]
    if settings.exact_duplicates or settings.placeholder_min_urls is not None:
        _judge_content(whole, settings)
    if settings.perceptual_distance is not None:
        whole.drop(perceptual_rows(whole, settings), Reason.PERCEPTUAL_DUPLICATE)
    if settings.semantic_cosine is not None:
        whole.drop(semantic_rows(whole, settings), Reason.SEMANTIC_DUPLICATE)
    if settings.max_domain_share is not None:
        cap_domains(whole, settings.max_domain_share)


def _bounds(whole: WholeSet, settings: CurateSettings) -> list[Bound]:
    asked = rules(settings)
    shares = [rule for rule in asked if rule.top_share is not None]
    found = iter(_thresholds(whole, shares))
    bounds = []
    for rule in asked:
        lowest = -np.inf if rule.min is None else rule.min
        if rule.top_share is not None:
            lowest = max(lowest, next(found))
            whole.facts[f"{rule.score}_threshold"] = lowest
        bounds.append(Bound(rule, lowest, np.inf if rule.max is None else rule.max))
    return bounds


def _thresholds(whole: WholeSet, shares: Sequence[ScoreRule]) -> list[float]:
    """Return the smallest score that each rule keeps, so that it keeps its share of the train rows with that score."""
    if not shares:
        return []
    names = tuple(rule.score for rule in shares)
    totals = np.zeros(len(shares), np.int64)

    def count(prefixes: UInt64[np.ndarray, "groups"], shift: int) -> Counts:
        calls = [whole.calls.start(score_digits, block, names, prefixes, shift) for block in whole.blocks]
        return np.sum(values_of(calls, "curate scores"), axis=0)

    def place_of(sizes: Int[np.ndarray, "groups"]) -> Int[np.ndarray, "groups"]:
        totals[:] = sizes
        number = [
            max(1, int(np.floor((rule.top_share or 1.0) * n)))
            for rule, n in zip(shares, sizes.tolist(), strict=True)
        ]
        return sizes - np.array(number) + 1

    values = values_of_keys(kth_smallest(place_of, len(shares), SCORE_BITS, count))
    return [float(value) if total else -np.inf for value, total in zip(values, totals, strict=True)]


def score_digits(
    block: Block, names: Sequence[str], prefixes: UInt64[np.ndarray, "groups"], shift: int
) -> Counts:
    """Return the digit counts of the train rows' scores, one group per score name."""
    chosen = [block.scores[name][(block.split == TRAIN) & ~np.isnan(block.scores[name])] for name in names]
    groups = np.repeat(np.arange(len(names)), [len(values) for values in chosen])
    return digit_counts(ordered_keys(np.concatenate(chosen)), groups, prefixes, shift)


def scored(block: Block, bounds: Sequence[Bound]) -> Reasons:
    """Return the reasons given by the score rules; rows without a score pass."""
    reasons = np.full(len(block.split), KEPT, np.int8)
    for rule, lowest, highest in bounds:
        values = block.scores[rule.score]
        low = values < lowest if rule.top_share is not None else values < np.float32(lowest)
        reason = Reason.LOW_SIMILARITY if rule.score == "similarity" else Reason.LOW_SCORE
        reasons[(low | (values > highest)) & (reasons == KEPT)] = code_of(reason)
    return reasons


def _judge_content(whole: WholeSet, settings: CurateSettings) -> None:
    """Drop placeholders, counted over all rows whatever the score rules decided, then exact copies among the remaining rows."""
    sources = list(zip(whole.blocks, whole.reasons, strict=True))
    parts = exchanged(whole.calls, sources, content_pieces, whole.num_parts, "curate content")
    found = [
        whole.calls.start_each(
            judged_content, 2, settings.placeholder_min_urls, settings.exact_duplicates, *pieces
        )
        for pieces in parts
    ]
    spoiled = whole.flagged([placeholder for placeholder, _ in found])
    copies = whole.flagged([copy for _, copy in found])
    whole.reasons = [
        whole.calls.start(with_content, *told) for told in zip(whole.reasons, spoiled, copies, strict=True)
    ]


def content_pieces(block: Block, reasons: Reasons, num_parts: int) -> list[Columns]:
    """Return, for rows with a digest: digest, rank and whether the score rules keep the row, by part of the digest."""
    rows = block.has_digest
    digest = block.digest[rows]
    part = (digest[:, 0] % np.uint64(num_parts)).astype(np.int64)
    return cut(part, num_parts, digest, block.rank[rows], (reasons == KEPT)[rows])


def judged_content(
    min_urls: int | None, is_exact: bool, *pieces: Columns
) -> tuple[Int[np.ndarray, "placeholders"], Int[np.ndarray, "copies"]]:
    """Return the numbers of the rows of a part that are placeholders, and of those that are exact copies of a remaining row."""
    digest, rank, is_left = joined(pieces)
    spoiled = np.zeros(len(rank), bool) if min_urls is None else placeholders(digest, min_urls)
    left = np.flatnonzero(is_left & ~spoiled) if is_exact else np.zeros(0, np.int64)
    copies = left[exact_copies(digest[left], rank[left])]
    return rows_of(rank[spoiled]), rows_of(rank[copies])


def with_content(reasons: Reasons, spoiled: Bool[np.ndarray, "n"], copies: Bool[np.ndarray, "n"]) -> Reasons:
    """Return the reasons with those of content rules: a placeholder's reason replaces a score's, an exact copy's does not."""
    found = reasons.copy()
    found[copies & (found == KEPT)] = code_of(Reason.EXACT_DUPLICATE)
    found[spoiled] = code_of(Reason.PLACEHOLDER)
    return found
