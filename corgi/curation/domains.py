"""Registered domains of URLs, by the public suffix list in the installed package, and the cap on their share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Int

from corgi.settings.errors import InputError

if TYPE_CHECKING:
    from tldextract import TLDExtract


@cache
def _extractor() -> "TLDExtract":
    """Return an extractor that never uses the network and writes no cache; loaded only if a recipe caps domains."""
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domains(urls: Sequence[str | None]) -> list[str | None]:
    """Return each URL's registered domain (`a.b.co.uk` -> `b.co.uk`); an IP address or unusual host is returned as it is."""
    known: dict[str, str | None] = {}
    found: list[str | None] = []
    for url in urls:
        host = _host(url)
        if host not in known:
            known[host] = _registered(host)
        found.append(known[host])
    return found


@dataclass(frozen=True)
class DomainSizes:
    """Histogram of the number of rows per domain, and the number of rows without a domain."""

    rows: Int[np.ndarray, "sizes"]
    """Distinct numbers of rows per domain, ascending, all above 0."""
    domains: Int[np.ndarray, "sizes"]
    unnamed: int

    def fits(self, cap: int, share: float) -> bool:
        """Return whether no domain has more than a share of the remaining rows if each domain keeps at most `cap` rows."""
        kept = np.minimum(self.rows, cap)
        return int(kept.max(initial=0)) <= share * (int((kept * self.domains).sum()) + self.unnamed)


def largest_cap(sizes: DomainSizes, share: float) -> int:
    """Return the most rows that a domain may keep so that none has more than a share of the rows that stay, including those without a domain.

    Raises:
        InputError: there are too few domains for the share.

    """
    low, high = 1, int(sizes.rows.max(initial=1))
    if not sizes.fits(low, share) and len(sizes.rows):
        raise InputError(
            f"curate.max_domain_share={share} cannot be kept: the rows come from {int(sizes.domains.sum())} registered domains; "
            "committed work is safe; raise the share or leave it out"
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sizes.fits(middle, share) else (low, middle - 1)
    return low


def _host(url: str | None) -> str:
    try:
        return (urlsplit(url).hostname or "") if url else ""
    except ValueError:
        return ""


def _registered(host: str) -> str | None:
    parts = _extractor()(host)
    return f"{parts.domain}.{parts.suffix}" if parts.domain and parts.suffix else host or None
