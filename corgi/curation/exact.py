"""Rows with equal bytes: placeholders, which many URLs return, and copies."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64

Digests = UInt64[np.ndarray, "n 2"]


def digests(texts: Sequence[str | None]) -> tuple[Digests, Bool[np.ndarray, "n"]]:
    """Return a 128-bit hash per text, and which rows have a text; a row without a text is equal to no other."""
    joined = b"".join([hashlib.blake2b((text or "").encode(), digest_size=16).digest() for text in texts])
    return np.frombuffer(joined, np.uint64).reshape(-1, 2), np.array(
        [text is not None for text in texts], bool
    )


def placeholders(digest: Digests, min_urls: int) -> Bool[np.ndarray, "n"]:
    """Return which rows have a digest that at least `min_urls` rows share; all rows with a digest must be passed."""
    order, starts = _groups(digest)
    sizes = np.diff(np.append(starts, len(order)))
    found = np.zeros(len(digest), bool)
    found[order] = np.repeat(sizes >= min_urls, sizes)
    return found


def exact_copies(digest: Digests, rank: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Return which rows have the same digest as a row of lower rank; all ranks are different."""
    order, starts = _groups(digest)
    first = np.minimum.reduceat(rank[order], starts) if len(order) else rank
    found = np.zeros(len(digest), bool)
    found[order] = rank[order] > np.repeat(first, np.diff(np.append(starts, len(order))))
    return found


def _groups(digest: Digests) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "groups"]]:
    """Return an order in which equal digests are adjacent, and the start of each group in it."""
    order = np.lexsort((digest[:, 1], digest[:, 0]))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (digest[order[1:]] != digest[order[:-1]]).any(axis=1)
    return order, np.flatnonzero(is_first)
