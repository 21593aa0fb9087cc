"""Who a picture is: its uid, its group's split, its shard. Pure functions of its URL and the seed."""

import hashlib
from urllib.parse import quote, urlsplit, urlunsplit

from corgi.tables.schema import Split

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE = "/:@!$&'()*+,;=~-._%"


def canonical_url(url: str) -> str:
    """Return the URL as identity sees it: lower-case scheme and host, no default port, no fragment, escapes written once.

    A text that is no URL is its own canonical form, so that its row keeps an identity and is rejected by the fetch.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return url.strip()
    if not parts.scheme or not parts.hostname:
        return url.strip()
    scheme, host = parts.scheme.lower(), parts.hostname.lower()
    host = f"[{host}]" if ":" in host else host
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    place = host if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{host}:{port}"
    path = quote(parts.path or "/", safe=_SAFE, errors="surrogatepass")
    query = quote(parts.query, safe=_SAFE + "?", errors="surrogatepass")
    return urlunsplit((scheme, user + place, path, query, ""))


def uid(canonical: str) -> str:
    """Return the 128-bit identity, 32 lower hex digits, of a canonical URL."""
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def shard_of(identity: str, num_shards: int) -> int:
    """Return the shard of a uid: equal ranges of its leading 64 bits, so that hosts spread and duplicates meet."""
    return int(identity[:16], 16) * num_shards >> 64


def split_of(group: str, seed: int, val_share: float, test_share: float) -> Split:
    """Return the split of a group by hash(seed, group); a group never straddles two."""
    place = (
        int.from_bytes(
            hashlib.blake2b(f"{seed}:{group}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        )
        / 2**64
    )
    if place < test_share:
        return Split.TEST
    return Split.VAL if place < test_share + val_share else Split.TRAIN
