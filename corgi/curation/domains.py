"""Registered domains of URLs, by the public suffix list inside the installed package, and a cap on their share."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Bool, Int

from corgi.settings.errors import InputError

if TYPE_CHECKING:
    from tldextract import TLDExtract


@cache
def _extractor() -> "TLDExtract":
    """Return an extractor that never uses the network and writes no cache; loaded only if a recipe caps domains."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domains(urls: Sequence[str | None]) -> list[str | None]:
    """Return each URL's registered domain (`a.b.co.uk` -> `b.co.uk`); an address or an odd host stands for itself."""
    known: dict[str, str | None] = {}
    found: list[str | None] = []
    for url in urls:
        host = _host(url)
        if host not in known:
            known[host] = _registered(host)
        found.append(known[host])
    return found


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
            "committed work is safe; raise it or leave it out"
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


def _host(url: str | None) -> str:
    try:
        return (urlsplit(url).hostname or "") if url else ""
    except ValueError:
        return ""


def _registered(host: str) -> str | None:
    parts = _extractor()(host)
    return f"{parts.domain}.{parts.suffix}" if parts.domain and parts.suffix else host or None
