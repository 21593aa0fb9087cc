"""Perceptual duplicates over all blocks: rows of one hash are one node, nodes within the distance are pairs, pairs are decided."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from corgi.curation.block import Block
from corgi.curation.decision import decided_rows, noted
from corgi.curation.exchange import Columns, cut, exchanged, joined
from corgi.curation.parts import pairs_line
from corgi.curation.perceptual import ALL_BITS, HASH_BITS, Banding, banding, pairs_of_key, part_of
from corgi.curation.precedence import Pairs, ordered, rows_of, splits_of
from corgi.curation.whole_set import KEPT, Reasons, WholeSet
from corgi.flow.tasks import Ref, values_of, wait_for
from corgi.settings.clip import CurateSettings

_ALL = (1 << HASH_BITS) - 1


def perceptual_rows(whole: WholeSet, settings: CurateSettings) -> list[Ref]:
    """Return the numbers of the rows that are near a row that comes before them and stays, as results of calls."""
    assert settings.perceptual_distance is not None
    across = settings.duplicates == "across_splits"
    sources = list(zip(whole.blocks, whole.reasons, strict=True))
    parts = exchanged(whole.calls, sources, hash_pieces, whole.num_parts, "curate hashes")
    found = [whole.calls.start_each(nodes, 3, *pieces) for pieces in parts]
    held = [part for part, _, _ in found]
    num_nodes = sum(values_of([number for _, _, number in found], "curate hashes"))
    pairs: list[Ref] = []
    pairs_line(num_nodes, settings)  # too many are refused
    bands = banding(num_nodes, settings.perceptual_distance)
    for number, key in enumerate(bands.keys, 1):
        pairs += _pairs(
            whole,
            held,
            settings.perceptual_distance,
            bands,
            key,
            across,
            f"curate near hashes {number} of {len(bands.keys)}",
        )
    gone = decided_rows(whole, pairs)
    return [gone, *(whole.calls.start(gone_members, members, gone, across) for _, members, _ in found)]


def _pairs(
    whole: WholeSet,
    held: Sequence[Ref],
    distance: int,
    bands: Banding,
    key: tuple[int, ...],
    across: bool,
    label: str,
) -> list[Ref]:
    """Return the pairs that a key finds; its exchange is gone before that of the next one begins."""
    sources = [(part, bands.mask(key)) for part in held]
    parts = exchanged(whole.calls, sources, key_pieces, whole.num_parts, label)
    found = [whole.calls.start_each(near_nodes, 2, distance, bands, key, across, *pieces) for pieces in parts]
    wait_for([note for _, note in found], label)
    return found


def hash_pieces(block: Block, reasons: Reasons, num_parts: int) -> list[Columns]:
    """Return hash and rank of the rows that are left and have a hash, by part of the hash."""
    rows = (reasons == KEPT) & block.has_phash
    values = block.phash[rows]
    return cut(part_of(values, _ALL, num_parts), num_parts, values, block.rank[rows])


def nodes(*pieces: Columns) -> tuple[Columns, Columns, int]:
    """Return hash and rank of the first row of each hash and split, (rank, rank of that row) of the others, and the number of the former.

    Rows of one hash and one split have the same neighbours, so that they are decided as one.
    """
    values, rank = joined(pieces)
    order = np.lexsort((rank, values))
    values, rank = values[order], rank[order]
    split = splits_of(rank)
    is_first = np.ones(len(rank), bool)
    is_first[1:] = (values[1:] != values[:-1]) | (split[1:] != split[:-1])
    first = rank[is_first][np.cumsum(is_first) - 1]
    return (values[is_first], rank[is_first]), (rank[~is_first], first[~is_first]), int(is_first.sum())


def key_pieces(part: Columns, mask: int, num_parts: int) -> list[Columns]:
    """Return the nodes by part of their bits in a mask."""
    values, rank = part
    return cut(part_of(values, mask, num_parts), num_parts, values, rank)


def near_nodes(
    distance: int, bands: Banding, key: tuple[int, ...], across: bool, *pieces: Columns
) -> tuple[Pairs, tuple[int, Int[np.ndarray, "cuts"]]]:
    """Return the pairs of ranks that a key finds, and a note of them; `across`: those of two splits only."""
    values, rank = joined(pieces)
    near = pairs_of_key(values, distance, bands, key, ALL_BITS)
    pairs = ordered(rank[near[:, 0]], rank[near[:, 1]])
    if across:
        pairs = pairs[splits_of(pairs[:, 0]) != splits_of(pairs[:, 1])]
    return pairs, noted(pairs)


def gone_members(members: Columns, gone: Int[np.ndarray, "gone"], across: bool) -> Int[np.ndarray, "rows"]:
    """Return the numbers of the rows that go with the first row of their hash, or because of it where copies of one split go too."""
    rank, first = members
    return rows_of(rank[np.isin(rows_of(first), gone)] if across else rank)
