"""The cap per registered domain over all blocks: rows of each domain are counted by parts, and the last rows of a domain are dropped.

The last row that a domain keeps is found by passes of counts, so that no part needs all rows of a large domain.
Fewer than 1 / share domains have more rows than the cap, because each of them has about that share of the rows that stay.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, UInt64

from corgi.curation.block import Block
from corgi.curation.domains import DomainSizes, largest_cap
from corgi.curation.exchange import Columns, cut, exchanged, joined
from corgi.curation.order_statistics import Counts, digit_counts, kth_smallest
from corgi.curation.precedence import RANK_BITS
from corgi.curation.whole_set import KEPT, Reasons, WholeSet, code_of
from corgi.flow.tasks import Ref, values_of
from corgi.tables.schema import Reason

_TOP_DOMAINS = 10
_LABEL = "curate domains"

Hashes = UInt64[np.ndarray, "domains"]
Sizes = Int[np.ndarray, "domains"]


def cap_domains(whole: WholeSet, share: float) -> None:
    """Drop the last rows of the domains that have more than a share of the rows that stay.

    Raises:
        InputError: there are too few domains for the share.

    """
    counted = _counted(whole)
    sizes = _sizes(whole, counted)
    cap = largest_cap(sizes, share)
    over = [whole.calls.start(domains_over, part, cap) for part in counted]
    heavy = np.sort(np.concatenate(values_of(over, _LABEL)))
    if len(heavy):
        last = _last_ranks(whole, heavy, cap)
        told = zip(whole.blocks, whole.reasons, strict=True)
        whole.reasons = [whole.calls.start(capped, *given, heavy, last) for given in told]
    whole.facts |= {"rows_a_domain": cap, "largest_domains": _largest(whole, counted, sizes, cap)}


def _counted(whole: WholeSet) -> list[Ref]:
    """Return, by part, the domains of the remaining rows and their numbers of rows."""
    sources = list(zip(whole.blocks, whole.reasons, strict=True))
    parts = exchanged(whole.calls, sources, count_pieces, whole.num_parts, _LABEL)
    return [whole.calls.start(added, *pieces) for pieces in parts]


def _sizes(whole: WholeSet, counted: Sequence[Ref]) -> DomainSizes:
    found = values_of([whole.calls.start(size_counts, part) for part in counted], _LABEL)
    rows, group = np.unique(np.concatenate([rows for rows, _ in found]), return_inverse=True)
    domains = np.bincount(group, np.concatenate([number for _, number in found]), len(rows))
    told = zip(whole.blocks, whole.reasons, strict=True)
    unnamed = values_of([whole.calls.start(num_unnamed, *given) for given in told], _LABEL)
    return DomainSizes(rows, domains.astype(np.int64), sum(unnamed))


def _last_ranks(whole: WholeSet, heavy: Hashes, cap: int) -> Int[np.ndarray, "domains"]:
    """Return the rank of the last row that each domain over the cap keeps."""

    def count(prefixes: UInt64[np.ndarray, "domains"], shift: int) -> Counts:
        told = zip(whole.blocks, whole.reasons, strict=True)
        calls = [whole.calls.start(rank_digits, *given, heavy, prefixes, shift) for given in told]
        return np.sum(values_of(calls, _LABEL), axis=0)

    return kth_smallest(lambda sizes: np.full(len(sizes), cap), len(heavy), RANK_BITS, count).astype(np.int64)


def _largest(whole: WholeSet, counted: Sequence[Ref], sizes: DomainSizes, cap: int) -> dict[str, float]:
    """Return the shares of the remaining rows that the largest domains have."""
    found = values_of([whole.calls.start(largest, part) for part in counted], _LABEL)
    domains, rows = joined(found)
    best = np.lexsort((domains, -rows))[:_TOP_DOMAINS]
    told = values_of([whole.calls.start(names_of, block, domains[best]) for block in whole.blocks], _LABEL)
    names = {domain: name for each in told for domain, name in each.items()}
    total = int((np.minimum(sizes.rows, cap) * sizes.domains).sum()) + sizes.unnamed
    return {names[int(domains[row])]: min(int(rows[row]), cap) / total for row in best}


def hashes(names: pa.Array) -> Hashes:
    """Return a 64-bit hash per domain name."""
    texts = (name.encode() for name in names.to_pylist())
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts), np.uint64)


def count_pieces(block: Block, reasons: Reasons, num_parts: int) -> list[Columns]:
    """Return the domains of a block's remaining rows and their numbers of rows, by part of the domain."""
    rows = np.bincount(block.domain[_named(block, reasons)], minlength=len(block.domains))
    domains = hashes(block.domains)[rows > 0]
    return cut((domains % np.uint64(num_parts)).astype(np.int64), num_parts, domains, rows[rows > 0])


def added(*pieces: Columns) -> tuple[Hashes, Sizes]:
    """Return the domains of a part, each once, and their numbers of rows in all blocks."""
    domains, rows = joined(pieces)
    distinct, group = np.unique(domains, return_inverse=True)
    return distinct, np.bincount(group, rows, len(distinct)).astype(np.int64)


def size_counts(part: tuple[Hashes, Sizes]) -> tuple[Sizes, Sizes]:
    """Return the distinct numbers of rows of a part's domains, and how many domains have each number."""
    return np.unique(part[1], return_counts=True)


def domains_over(part: tuple[Hashes, Sizes], cap: int) -> Hashes:
    """Return the domains that have more rows than the cap."""
    return part[0][part[1] > cap]


def largest(part: tuple[Hashes, Sizes]) -> tuple[Hashes, Sizes]:
    """Return the largest domains of a part and their numbers of rows."""
    best = np.lexsort((part[0], -part[1]))[:_TOP_DOMAINS]
    return part[0][best], part[1][best]


def names_of(block: Block, domains: Hashes) -> dict[int, str]:
    """Return the names of those of the given domains that occur in a block."""
    held = hashes(block.domains)
    rows = np.flatnonzero(np.isin(held, domains))
    return {int(held[row]): block.domains[int(row)].as_py() for row in rows}


def num_unnamed(block: Block, reasons: Reasons) -> int:
    """Return the number of remaining rows without a domain."""
    return int(((reasons == KEPT) & (block.domain < 0)).sum())


def rank_digits(
    block: Block, reasons: Reasons, heavy: Hashes, prefixes: UInt64[np.ndarray, "domains"], shift: int
) -> Counts:
    """Return the digit counts of the remaining rows' ranks, one group per domain over the cap."""
    rows, groups = _in_heavy(block, reasons, heavy)
    return digit_counts(block.rank[rows].astype(np.uint64), groups, prefixes, shift)


def capped(block: Block, reasons: Reasons, heavy: Hashes, last: Int[np.ndarray, "domains"]) -> Reasons:
    """Return the reasons, with the cap's reason for the remaining rows after the last one that their domain keeps."""
    rows, groups = _in_heavy(block, reasons, heavy)
    found = reasons.copy()
    found[rows[block.rank[rows] > last[groups]]] = code_of(Reason.DOMAIN_CAP)
    return found


def _in_heavy(
    block: Block, reasons: Reasons, heavy: Hashes
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """Return the remaining rows whose domain is over the cap, and the index of that domain in `heavy`, which is sorted."""
    held = hashes(block.domains)
    number = np.searchsorted(heavy, held).clip(max=len(heavy) - 1)
    group_of = np.where(heavy[number] == held, number, -1) if len(held) else np.zeros(0, np.int64)
    rows = np.flatnonzero(_named(block, reasons))
    groups = group_of[block.domain[rows]]
    return rows[groups >= 0], groups[groups >= 0]


def _named(block: Block, reasons: Reasons) -> Bool[np.ndarray, "n"]:
    return (reasons == KEPT) & (block.domain >= 0)
