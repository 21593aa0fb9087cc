"""The identity of an image: its uid, its group's split and its shard, as pure functions of URL, group and seed."""

import hashlib
import string
from collections.abc import Sequence
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, UInt64

from corgi.tables.arrow import pc
from corgi.tables.schema import Split

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE = "/:@!$&'()*+,;=~-._%"
_LETTERS = r"/:@!$&'()*+,;=~._%A-Za-z0-9-"
_CANONICAL = rf"^https?://[a-z0-9._-]+/[{_LETTERS}]*(\?[?{_LETTERS}]+)?$"
"""Matches URLs that are already in canonical form, as most URLs of a list are."""


def canonical_url(url: str) -> str:
    """Return the canonical form of a URL: lower-case scheme and host, no default port, no fragment, characters escaped once.

    A text that is not a URL is its own canonical form, so that its row has an identity and is rejected by the fetch.
    """
    return _spelled(url, _SAFE)


def request_url(url: str) -> str:
    """Return the URL to request: path and query as listed, except that blanks and characters outside ASCII are escaped.

    Servers that sign their URLs compare them byte for byte. Scheme, host and port are those of the canonical form, and a
    fragment is never sent.
    """
    spelled = _spelled(url, string.punctuation)
    has_empty_query = url.strip().partition("#")[0].endswith("?") and not spelled.endswith("?")
    return f"{spelled}?" if has_empty_query else spelled


def escaped(text: str) -> str:
    """Return a part of a URL as a request writes it: blanks and bytes outside ASCII are escaped, all else is unchanged.

    Bytes of a header that are not UTF-8 are surrogates in the text and are escaped as the original bytes.
    """
    return quote(text, safe=string.punctuation, errors="surrogateescape")


def _spelled(url: str, safe: str) -> str:
    """Return the canonical form, in whose path and query the characters of `safe` are not escaped."""
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
    authority = host if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{host}:{port}"
    path = quote(parts.path or "/", safe=safe, errors="surrogatepass")
    query = quote(parts.query, safe=safe + "?", errors="surrogatepass")
    return urlunsplit((scheme, user + authority, path, query, ""))


def canonical_urls(urls: pa.Array) -> pa.Array:
    """Return the canonical form of many URLs, and the empty text for null; only URLs that are not canonical are parsed."""
    urls = pc.fill_null(urls, "")
    is_canonical = pc.match_substring_regex(urls, _CANONICAL)
    if pc.all(is_canonical).as_py():
        return urls
    rewritten = [canonical_url(url) for url in urls.filter(pc.invert(is_canonical)).to_pylist()]
    return pc.replace_with_mask(urls, pc.invert(is_canonical), pa.array(rewritten, pa.string()))


def request_urls(urls: pa.Array, canonical: pa.Array) -> pa.Array:
    """Return the URL to request if it differs from the canonical one, else null."""
    is_rewritten = pc.fill_null(pc.not_equal(urls, canonical), False)
    if not pc.any(is_rewritten).as_py():
        return pa.nulls(len(urls), pa.string())
    asked = pa.array([request_url(url) for url in urls.filter(is_rewritten).to_pylist()], pa.string())
    asked = pc.replace_with_mask(canonical, is_rewritten, asked)
    return pc.if_else(pc.equal(asked, canonical), pa.scalar(None, pa.string()), asked)


def content_url(sha256: str) -> str:
    """Return the canonical name of an image without a URL, made from its content."""
    return f"urn:sha256:{sha256}"


def uid_bytes(urls: Sequence[bytes]) -> list[bytes]:
    """Return the 16 bytes of the uid of each canonical URL, given as UTF-8."""
    blake2b = hashlib.blake2b
    return [blake2b(url, digest_size=16).digest() for url in urls]


def ranges_of(leading: UInt64[np.ndarray, "n"], num_ranges: int) -> Int32[np.ndarray, "n"]:
    """Return `leading * num_ranges >> 64` of the leading 64 bits of uids, exactly; at most 2^31 ranges."""
    high, low = leading >> np.uint64(32), leading & np.uint64(0xFFFFFFFF)
    count = np.uint64(num_ranges)
    return ((high * count + (low * count >> np.uint64(32))) >> np.uint64(32)).astype(np.int32)


def split_of(group: str, seed: int, val_share: float, test_share: float) -> Split:
    """Return the split of a group by hash(seed, group); all rows of a group get the same split."""
    uniform = (
        int.from_bytes(
            hashlib.blake2b(f"{seed}:{group}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        )
        / 2**64
    )
    if uniform < test_share:
        return Split.TEST
    return Split.VAL if uniform < test_share + val_share else Split.TRAIN


def splits_of(groups: Sequence[bytes], seed: int, val_share: float, test_share: float) -> list[str]:
    """Return `split_of` of many groups, given as UTF-8."""
    prefix, blake2b = f"{seed}:".encode(), hashlib.blake2b
    hashes = b"".join([blake2b(prefix + group, digest_size=8).digest() for group in groups])
    uniform = np.frombuffer(hashes, ">u8").astype(np.float64) / 2**64
    names = np.array([str(split) for split in (Split.TEST, Split.VAL, Split.TRAIN)], object)
    return names[np.searchsorted([test_share, test_share + val_share], uniform, side="right")].tolist()
