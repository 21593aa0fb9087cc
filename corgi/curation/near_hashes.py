"""Perceptual duplicates over all blocks: rows with the same hash form one node, nodes within the distance form pairs, and the pairs are decided."""

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
    """Return the numbers of the rows that are near an earlier row that stays, as results of calls."""
    assert settings.perceptual_distance is not None
    across = settings.duplicates == "across_splits"
    sources = list(zip(whole.blocks, whole.reasons, strict=True))
    parts = exchanged(whole.calls, sources, hash_pieces, whole.num_parts, "curate hashes")
    found = [whole.calls.start_each(nodes, 3, *pieces) for pieces in parts]
    held = [part for part, _, _ in found]
    num_nodes = sum(values_of([number for _, _, number in found], "curate hashes"))
    pairs: list[Ref] = []
    pairs_line(num_nodes, settings)  # raises SettingsError if there are too many
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
    """Return the pairs that a key finds; its exchanged data is freed before the next key's exchange begins."""
    sources = [(part, bands.mask(key)) for part in held]
    parts = exchanged(whole.calls, sources, key_pieces, whole.num_parts, label)
    found = [whole.calls.start_each(near_nodes, 2, distance, bands, key, across, *pieces) for pieces in parts]
    wait_for([note for _, note in found], label)
    return found


def hash_pieces(block: Block, reasons: Reasons, num_parts: int) -> list[Columns]:
    """Return hash and rank of the remaining rows with a hash, by part of the hash."""
    rows = (reasons == KEPT) & block.has_phash
    values = block.phash[rows]
    return cut(part_of(values, _ALL, num_parts), num_parts, values, block.rank[rows])


def nodes(*pieces: Columns) -> tuple[Columns, Columns, int]:
    """Return hash and rank of the first row of each hash and split, (rank, rank of that first row) of the others, and the number of first rows.

    Rows of the same hash and split have the same neighbours, so they are decided together.
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
    """Return the nodes by part of their bits under a mask."""
    values, rank = part
    return cut(part_of(values, mask, num_parts), num_parts, values, rank)


def near_nodes(
    distance: int, bands: Banding, key: tuple[int, ...], across: bool, *pieces: Columns
) -> tuple[Pairs, tuple[int, Int[np.ndarray, "cuts"]]]:
    """Return the pairs of ranks that a key finds, and their note; with `across` only pairs of two different splits."""
    values, rank = joined(pieces)
    near = pairs_of_key(values, distance, bands, key, ALL_BITS)
    pairs = ordered(rank[near[:, 0]], rank[near[:, 1]])
    if across:
        pairs = pairs[splits_of(pairs[:, 0]) != splits_of(pairs[:, 1])]
    return pairs, noted(pairs)


def gone_members(members: Columns, gone: Int[np.ndarray, "gone"], across: bool) -> Int[np.ndarray, "rows"]:
    """Return the numbers of the dropped rows that are not the first of their hash and split: all, or with `across` those whose first row is dropped."""
    rank, first = members
    return rows_of(rank[np.isin(rows_of(first), gone)] if across else rank)
