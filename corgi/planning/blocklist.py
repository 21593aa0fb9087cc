"""Blocklists of URLs, domains and picture hashes: what they name is never requested and never kept."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.cells import text_of
from corgi.sources.identity import canonical_url, uid_bytes
from corgi.sources.rows import BATCH_ROWS, chunked
from corgi.sources.text import filled_lines
from corgi.storage.paths import ending, expand, first_line, open_file, sha256_of
from corgi.tables.schema import Reason

_SETTINGS = ("block_urls", "block_domains", "block_hashes")
_KIND_OF_LENGTH = {64: "sha256", 32: "md5", 16: "phash"}
_HASH = re.compile(r"(?:(sha256|md5|phash):)?([0-9a-f]+)")


@dataclass(frozen=True)
class HashBlocklist:
    """Blocked content: sorted 16-byte digests of `kind:hex`, so that millions of them take little memory."""

    digests: np.ndarray = field(default_factory=lambda: np.empty(0, "S16"))
    kinds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hashes: Iterable[str]) -> Self:
        """Return the blocklist of `kind:hex` texts."""
        blocks, kinds = [], set()
        for block in chunked(iter(hashes)):
            blocks.append(_digests(block))
            kinds.update({text.partition(":")[0] for text in block})
        return cls(np.unique(np.concatenate([np.empty(0, "S16"), *blocks])), frozenset(kinds))

    def __contains__(self, text: str) -> bool:
        """Return whether a `kind:hex` is blocked."""
        return bool(self.holds([text])[0])

    def holds(self, texts: list[str]) -> np.ndarray:
        """Return which of the `kind:hex` texts are blocked."""
        return _among(_digests(texts), self.digests)


@dataclass(frozen=True)
class Blocklist:
    """The blocklists that the plan applies before any request."""

    urls: np.ndarray
    domains: frozenset[str]
    hashes: HashBlocklist

    @classmethod
    def of(cls, settings: PlanSettings) -> Self:
        """Read the lists that the settings name.

        Raises:
            InputError: a list cannot be read, or one of its lines is not a hash.

        """
        listed = chunked(_entries(settings.block_urls, "block_urls"))
        urls = [np.empty(0, "S16"), *(_url_digests(block) for block in listed)]
        domains = (text.lower().strip(".") for text in _entries(settings.block_domains, "block_domains"))
        return cls(np.unique(np.concatenate(urls)), frozenset(domains), HashBlocklist.of(hashes(settings)))

    def reasons(self, urls: list[str], digests: np.ndarray, known: list[list[str]]) -> list[Reason | None]:
        """Return why each planned row is blocked, or None.

        Args:
            urls: canonical URLs.
            digests: their 16-byte hashes, S16.
            known: what is known of each picture's content, as `kind:hex`.

        """
        by_url = _among(digests, self.urls)
        found: list[Reason | None] = [
            Reason.BLOCKED_URL if is_blocked else None for is_blocked in by_url.tolist()
        ]
        if self.domains:
            for row, url in enumerate(urls):
                if found[row] is None and self._is_blocked_domain(url):
                    found[row] = Reason.BLOCKED_DOMAIN
        if self.hashes.kinds:
            for row, texts in enumerate(known):
                if found[row] is None and texts and self.hashes.holds(texts).any():
                    found[row] = Reason.BLOCKED_HASH
        return found

    def _is_blocked_domain(self, url: str) -> bool:
        try:
            host = (urlsplit(url).hostname or "").strip(".")
        except ValueError:
            return False
        parts = host.split(".")
        return any(".".join(parts[at:]) in self.domains for at in range(len(parts)))

    def __bool__(self) -> bool:
        """Return whether anything is blocked."""
        return bool(len(self.urls) or self.domains or self.hashes.kinds)


def digests(settings: PlanSettings) -> list[str]:
    """Return what a plan depends on in its blocklists: the setting and the content hash of each."""
    return sorted(
        f"{name} {sha256_of(uri)}" for name in _SETTINGS for uri in _places(getattr(settings, name), name)
    )


def hashes(settings: PlanSettings) -> Iterator[str]:
    """Yield the blocked hashes as `kind:hex`.

    Raises:
        InputError: a line is not a hash; the message names it.

    """
    for text in _entries(settings.block_hashes, "block_hashes"):
        found = _HASH.fullmatch(text.lower())
        kind = _KIND_OF_LENGTH.get(len(found[2])) if found else None
        if found is None or kind is None or found[1] not in (None, kind):
            raise InputError(
                f"plan.block_hashes: {text[:80]!r} is not a sha256, md5 or phash; nothing was started; correct the list"
            )
        yield f"{kind}:{found[2]}"


def _url_digests(urls: list[str]) -> np.ndarray:
    return np.array(uid_bytes([canonical_url(url).encode() for url in urls]), "S16")


def _digests(texts: list[str]) -> np.ndarray:
    return np.array([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts], "S16")


def _among(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which of `wanted` are in the sorted `known`."""
    if not len(known):
        return np.zeros(len(wanted), bool)
    at = np.searchsorted(known, wanted)
    return (at < len(known)) & (known[np.minimum(at, len(known) - 1)] == wanted)


def _entries(patterns: tuple[str, ...], setting: str) -> Iterator[str]:
    for uri in _places(patterns, setting):
        try:
            yield from filter(None, _texts(uri))
        except InputError as error:
            error.args = (f"plan.{setting}: {error}",)
            raise
        except (OSError, pa.ArrowException, EOFError) as error:
            raise InputError(
                f"plan.{setting}: {uri} cannot be read ({first_line(error)}); nothing was started; correct the list"
            ) from error


def _texts(uri: str) -> Iterator[str]:
    if ending(uri) not in (".parquet", ".pq"):
        yield from filled_lines(uri)
        return
    with open_file(uri) as handle, pq.ParquetFile(handle) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[file.schema_arrow.names[0]]):
            yield from (text.strip() for text in text_of(batch.column(0), "", uri).to_pylist() if text)


def _places(patterns: tuple[str, ...], setting: str) -> list[str]:
    found = []
    for pattern in patterns:
        try:
            uris = expand(pattern)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"plan.{setting}: {pattern} cannot be read ({first_line(error)}); nothing was started; name a readable list"
            ) from error
        if not uris:
            raise InputError(
                f"plan.{setting}: {pattern} does not exist; nothing was started; name an existing list"
            )
        found += uris
    return found
