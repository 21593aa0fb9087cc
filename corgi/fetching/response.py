"""Handling of one response: checks, size limits, encodings, hashes, waits. No network access."""

import hashlib
import random
import zlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from multidict import MultiMapping

from corgi.fetching.robots import refusing_directive, refusing_usage
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

FIRST_BACKOFF_S = 0.2
MAX_RETRY_AFTER_S = 10.0
HASHES = frozenset({"md5", "sha256", "sha512"})
"""Hash functions allowed in an expected `hash:hex`."""
OVERLOADED = frozenset({429, 503})
"""Statuses of an overloaded host."""
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which another attempt may succeed."""
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


@dataclass(frozen=True)
class Body:
    """The bytes of a URL or a location, with the content encoding removed; http_status is None if no host was contacted."""

    data: bytes
    http_status: int | None = None


class AttemptError(Exception):
    """One attempt ended with a rejection; `is_transient`: another attempt may succeed."""

    def __init__(self, rejection: Rejection, is_transient: bool = False, retry_after_s: float = 0.0) -> None:
        """Keep the rejection; wait at least `retry_after_s` before another attempt."""
        super().__init__(rejection.detail)
        self.rejection = rejection
        self.is_transient = is_transient
        self.retry_after_s = retry_after_s


def check_response(status: int, headers: MultiMapping[str], settings: DownloadSettings) -> None:
    """Raise unless the status and headers allow reading the body.

    Raises:
        AttemptError: the status is not 200, the site opts out, or Content-Length exceeds `max_bytes`.

    """
    if status != 200:
        rejection = Rejection(Reason.HTTP_STATUS, f"HTTP status {status}", http_status=status)
        raise AttemptError(rejection, status in TRANSIENT_STATUSES, retry_after_s(headers.get("Retry-After")))
    tags = headers.getall("X-Robots-Tag", [])
    directive = refusing_directive(tags, settings.user_agent, settings.disallowed_header_directives)
    if directive:
        raise opted_out(f"X-Robots-Tag {directive}", status)
    usage = refusing_usage(headers.getall("Content-Usage", []), settings.disallowed_content_usage)
    if usage:
        raise opted_out(f"Content-Usage {usage}", status)
    length = headers.get("Content-Length") or ""
    if length.isdecimal() and int(length) > settings.max_bytes:
        raise too_large("Content-Length")


def opted_out(detail: str, status: int | None = None) -> AttemptError:
    """Return the rejection for a site that opts out of machine learning."""
    return AttemptError(Rejection(Reason.OPTED_OUT, detail, http_status=status))


def check_hash(body: bytes, expected: str) -> None:
    """Raise unless the body has the expected hash, `hash:hex`.

    Raises:
        AttemptError: the hash differs or is not one of HASHES.

    """
    name, _, digest = expected.strip().lower().partition(":")
    detail = f"{name} differs" if name in HASHES else "expected hash of an unknown kind"
    if name not in HASHES or hashlib.new(name, body, usedforsecurity=False).hexdigest() != digest:
        raise AttemptError(Rejection(Reason.HASH_MISMATCH, detail, http_status=200, num_bytes=len(body)))


class BoundedBody:
    """A body as it arrives, with the content encoding removed; the bytes received and the bytes decoded have the same limit."""

    def __init__(self, max_bytes: int, encoding: str) -> None:
        """Prepare for a Content-Encoding.

        Raises:
            AttemptError: the encoding was not requested and is not supported.

        """
        encoding = encoding.strip().lower()
        if encoding not in _ENCODINGS:
            raise AttemptError(
                Rejection(Reason.NOT_AN_IMAGE, "content encoding that was not asked for", http_status=200)
            )
        self._inflater = None if encoding in ("", "identity") else zlib.decompressobj(wbits=47)
        self._body = bytearray()
        self._max_bytes = max_bytes
        self._num_received = 0

    def add(self, chunk: bytes) -> None:
        """Append a chunk as received.

        Raises:
            AttemptError: the limit is exceeded, or the encoding is invalid.

        """
        self._num_received += len(chunk)
        if self._num_received > self._max_bytes:
            raise too_large("body")
        if self._inflater is not None:
            try:
                chunk = self._inflater.decompress(chunk, self._max_bytes + 1 - len(self._body))
            except zlib.error:
                raise AttemptError(
                    Rejection(Reason.DECODE_FAILED, "broken content encoding", http_status=200)
                ) from None
        self._body += chunk
        if len(self._body) > self._max_bytes:
            raise too_large("decoded body")

    def whole(self) -> bytes:
        """Return the body after its last chunk.

        Raises:
            AttemptError: the encoding ends early.

        """
        if self._inflater is not None and not self._inflater.eof:
            raise AttemptError(Rejection(Reason.SHORT_BODY, "content encoding ends early", http_status=200))
        return bytes(self._body)


def too_large(what: str) -> AttemptError:
    """Return the rejection for a body over max_bytes."""
    return AttemptError(Rejection(Reason.TOO_LARGE, f"{what} over max_bytes", http_status=200))


def backoff_s(attempt: int) -> float:
    """Return the wait after attempt number `attempt` (from 0), s: exponential with jitter."""
    return FIRST_BACKOFF_S * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing


def retry_after_s(value: str | None) -> float:
    """Return the wait of a Retry-After header, s, at most MAX_RETRY_AFTER_S."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value.strip()), MAX_RETRY_AFTER_S)
    with suppress(ValueError, TypeError):
        return min(
            max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()), MAX_RETRY_AFTER_S
        )
    return 0.0
