"""Phashes that differ in few bits, by multi-index hashing: all pairs within a distance, from a bounded number of candidates per row.

Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing" (CVPR 2012). The bits of a hash are cut into
distance + c bands. Two hashes within the distance agree in at least c of them, so only rows that agree in some c bands
are compared. There are

    K(c) = C(distance + c, c)      keys per row,
    b(c) = 64 c / (distance + c)   bits per key, and
    K(c) n / 2^(b(c) + 1)          candidate pairs per row among n evenly distributed hashes.

c is the number from 1 to 4 for which keys and candidates together cost least (`banding`). With more rows c grows, and the candidates
stay few: at distance 4, 28 per row among 10 million and 39 among 400 million; at distance 6, 162 and 826. If many rows have the same
key, they are divided again by their other bits, so that a block that is compared pair by pair stays bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from jaxtyping import Bool, Int, UInt64

HASH_BITS = 64
ALL_BITS = tuple(range(HASH_BITS))
MAX_BLOCK_ROWS = 4096
"""Largest number of rows with the same key that are compared pair by pair; more are first divided by their other bits."""
_LEAST_BITS = 8
"""A phash with fewer bits set, or unset, belongs to a flat image and carries no information."""
_MOST_BANDS_PER_KEY = 4
_KEY_COST = 12.0
"""Cost of sorting and exchanging one row by one key, in compared pairs."""
_EXCHANGE_COST = 1e7
"""Fixed cost of one exchange, in compared pairs: a tenth of a second."""
_MIX = np.uint64(0x9E3779B97F4A7C15)

Hashes = UInt64[np.ndarray, "n"]


@dataclass(frozen=True)
class Banding:
    """How hashes are cut into bands, and how many bands form a key."""

    bands: tuple[int, ...]
    """One mask of bits per band."""
    per_key: int

    @property
    def keys(self) -> list[tuple[int, ...]]:
        """Return the bands of each key."""
        return list(combinations(range(len(self.bands)), self.per_key))

    def mask(self, key: Sequence[int]) -> int:
        """Return the bits of a key."""
        return sum(self.bands[band] for band in key)


def phash_values(texts: Sequence[str | None]) -> tuple[Hashes, Bool[np.ndarray, "n"]]:
    """Return phashes as integers, and which of them can be compared: those that have 16 hex digits and are not of a flat picture."""
    values = np.zeros(len(texts), np.uint64)
    known = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        if text and len(text) == HASH_BITS // 4:
            values[row], known[row] = int(text, 16), True
    bits = np.bitwise_count(values)
    return values, known & (bits >= _LEAST_BITS) & (bits <= HASH_BITS - _LEAST_BITS)


def candidates_per_row(num_rows: int, distance: int, num_bits: int, bands_per_key: int) -> float:
    """Return the number of candidate pairs per row for evenly distributed hashes."""
    bands = distance + bands_per_key
    return comb(bands, bands_per_key) * num_rows / 2.0 ** (num_bits * bands_per_key / bands + 1)


def banding(num_rows: int, distance: int, bits: Sequence[int] = ALL_BITS) -> Banding:
    """Return the cheapest banding of some bits for a number of rows."""

    def cost(per_key: int) -> float:
        keys = comb(distance + per_key, per_key)
        overhead = _KEY_COST + _EXCHANGE_COST / max(1, num_rows)
        return keys * overhead + candidates_per_row(num_rows, distance, len(bits), per_key)

    possible = [c for c in range(1, _MOST_BANDS_PER_KEY + 1) if distance + c <= len(bits)]
    per_key = min(possible, key=cost)
    edges = np.linspace(0, len(bits), distance + per_key + 1).astype(int).tolist()
    bands = [sum(1 << bit for bit in bits[low:high]) for low, high in pairwise(edges)]
    return Banding(tuple(bands), per_key)


def expected_pairs(num_rows: int, distance: int) -> float:
    """Return the number of pairs compared among a number of evenly distributed hashes."""
    return num_rows * candidates_per_row(num_rows, distance, HASH_BITS, banding(num_rows, distance).per_key)


def part_of(values: Hashes, mask: int, num_parts: int) -> Int[np.ndarray, "n"]:
    """Return the rows' parts by a hash of the bits under a mask; rows with equal bits are in the same part."""
    masked = values & np.uint64(mask)
    mixed = (masked ^ (masked >> np.uint64(32))) * _MIX
    return ((mixed >> np.uint64(40)) % np.uint64(num_parts)).astype(np.int64)


def near_pairs(
    values: Hashes, distance: int, bits: Sequence[int] = ALL_BITS, max_block: int = MAX_BLOCK_ROWS
) -> Int[np.ndarray, "pairs 2"]:
    """Return all pairs of rows whose hashes differ in at most `distance` bits, each once, in no particular order.

    All hashes must agree in the bits that are not in `bits`.
    """
    if len(bits) <= distance:
        return np.stack(np.triu_indices(len(values), 1), axis=1)
    bands = banding(len(values), distance, bits)
    found = [pairs_of_key(values, distance, bands, key, bits, max_block) for key in bands.keys]
    return np.concatenate(found)


def pairs_of_key(
    values: Hashes,
    distance: int,
    bands: Banding,
    key: tuple[int, ...],
    bits: Sequence[int] = ALL_BITS,
    max_block: int = MAX_BLOCK_ROWS,
) -> Int[np.ndarray, "pairs 2"]:
    """Return the pairs within the distance that agree in all bands of a key but of no earlier key.

    So each pair is found by exactly one key, that of the first bands in which it agrees.
    """
    mask = bands.mask(key)
    masked = values & np.uint64(mask)
    order = np.argsort(masked, kind="stable")
    sizes = _run_sizes(masked[order])
    starts = np.cumsum(sizes) - sizes
    small = np.repeat(sizes <= max_block, sizes)
    found = [_neighbours(values, order[small], sizes[sizes <= max_block], distance)]
    others = [bit for bit in bits if not mask >> bit & 1]
    for start, size in zip(starts[sizes > max_block], sizes[sizes > max_block], strict=True):
        rows = order[start : start + size]
        found.append(rows[near_pairs(values[rows], distance, others, 4 * max_block)])
    pairs = np.concatenate(found)
    return pairs[_is_first_key(values[pairs[:, 0]] ^ values[pairs[:, 1]], bands, key)]


def _run_sizes(sorted_values: Hashes) -> Int[np.ndarray, "runs"]:
    is_first = np.ones(len(sorted_values), bool)
    is_first[1:] = sorted_values[1:] != sorted_values[:-1]
    return np.diff(np.append(np.flatnonzero(is_first), len(sorted_values)))


def _neighbours(
    values: Hashes, order: Int[np.ndarray, "n"], sizes: Int[np.ndarray, "runs"], distance: int
) -> Int[np.ndarray, "pairs 2"]:
    """Return the near pairs within each run of `order`; one comparison per row is in memory at a time."""
    ends = np.repeat(np.cumsum(sizes), sizes)
    found = [np.zeros((0, 2), np.int64)]
    active = np.arange(len(order))
    for step in range(1, int(sizes.max(initial=0))):
        active = active[active + step < ends[active]]
        left, right = order[active], order[active + step]
        near = np.bitwise_count(values[left] ^ values[right]) <= distance
        found.append(np.stack([left[near], right[near]], axis=1))
    return np.concatenate(found)


def _is_first_key(difference: Hashes, bands: Banding, key: tuple[int, ...]) -> Bool[np.ndarray, "n"]:
    """Return which pairs agree, before the key's last band, only in bands of the key."""
    first = np.ones(len(difference), bool)
    for band in range(key[-1]):
        if band not in key:
            first &= (difference & np.uint64(bands.bands[band])) != 0
    return first
