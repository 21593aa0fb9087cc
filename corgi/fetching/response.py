"""What became of one URL, and the arithmetic of one answer: refusals, byte caps, encodings, hashes, waits. No network."""

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
from corgi.tables.schema import Reason

FIRST_BACKOFF_S = 0.2
MAX_RETRY_AFTER_S = 10.0
HASHES = frozenset({"md5", "sha256", "sha512"})
"""Hashes that an expected `hash:hex` may name."""
OVERLOADED = frozenset({429, 503})
"""Statuses by which a host says that it is asked too much."""
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which another attempt may end otherwise."""
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


@dataclass(frozen=True)
class Fetched:
    """What became of one URL: a body, or a reason. num_bytes counts the body as received, decoded."""

    body: bytes | None = None
    reason: Reason | None = None
    detail: str = ""
    http_status: int | None = None
    num_bytes: int = 0


class StopError(Exception):
    """End one attempt with an outcome; `is_passing` says that another attempt may end otherwise."""

    def __init__(self, outcome: Fetched, is_passing: bool = False, retry_after_s: float = 0.0) -> None:
        """Keep the outcome; wait at least `retry_after_s` before another attempt."""
        super().__init__(outcome.detail)
        self.outcome = outcome
        self.is_passing = is_passing
        self.retry_after_s = retry_after_s


def check_answer(status: int, headers: MultiMapping[str], settings: DownloadSettings) -> None:
    """Let the head of an answer pass whose body is worth reading.

    Raises:
        StopError: the status is not 200, the site refuses, or the body is said to be too large.

    """
    if status != 200:
        outcome = Fetched(reason=Reason.HTTP_STATUS, detail=f"HTTP status {status}", http_status=status)
        raise StopError(outcome, status in PASSING_STATUSES, retry_after_s(headers.get("Retry-After")))
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


def opted_out(detail: str, status: int | None = None) -> StopError:
    """Return the refusal of a site that does not want its picture taken."""
    return StopError(Fetched(reason=Reason.OPTED_OUT, detail=detail, http_status=status))


def check_hash(body: bytes, expected: str) -> None:
    """Let a body pass whose hash is `hash:hex`.

    Raises:
        StopError: it is another body, or the hash is none of HASHES.

    """
    name, _, digest = expected.strip().lower().partition(":")
    detail = f"{name} differs" if name in HASHES else "expected hash of an unknown kind"
    if name not in HASHES or hashlib.new(name, body, usedforsecurity=False).hexdigest() != digest:
        raise StopError(
            Fetched(reason=Reason.HASH_MISMATCH, detail=detail, http_status=200, num_bytes=len(body))
        )


class BoundedBody:
    """A body as it comes in, decoded, within one cap for what is received and what it decodes to."""

    def __init__(self, max_bytes: int, encoding: str) -> None:
        """Prepare for a Content-Encoding.

        Raises:
            StopError: it is one that was not asked for and is not read here.

        """
        encoding = encoding.strip().lower()
        if encoding not in _ENCODINGS:
            raise StopError(
                Fetched(
                    reason=Reason.NOT_AN_IMAGE,
                    detail="content encoding that was not asked for",
                    http_status=200,
                )
            )
        self._inflater = None if encoding in ("", "identity") else zlib.decompressobj(wbits=47)
        self._body = bytearray()
        self._max_bytes = max_bytes
        self._num_received = 0

    def add(self, chunk: bytes) -> None:
        """Take a chunk as received.

        Raises:
            StopError: a cap is passed, or the encoding is broken.

        """
        self._num_received += len(chunk)
        if self._num_received > self._max_bytes:
            raise too_large("body")
        if self._inflater is not None:
            try:
                chunk = self._inflater.decompress(chunk, self._max_bytes + 1 - len(self._body))
            except zlib.error:
                raise StopError(
                    Fetched(reason=Reason.DECODE_FAILED, detail="broken content encoding", http_status=200)
                ) from None
        self._body += chunk
        if len(self._body) > self._max_bytes:
            raise too_large("decoded body")

    def whole(self) -> bytes:
        """Return the body after its last chunk.

        Raises:
            StopError: its encoding ends early.

        """
        if self._inflater is not None and not self._inflater.eof:
            raise StopError(
                Fetched(reason=Reason.SHORT_BODY, detail="content encoding ends early", http_status=200)
            )
        return bytes(self._body)


def too_large(what: str) -> StopError:
    """Return the refusal of a body that passes max_bytes."""
    return StopError(Fetched(reason=Reason.TOO_LARGE, detail=f"{what} over max_bytes", http_status=200))


def backoff_s(attempt: int) -> float:
    """Return the wait after the attempt of this number, from 0, s: exponential with jitter."""
    return FIRST_BACKOFF_S * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing


def retry_after_s(value: str | None) -> float:
    """Return the wait a server asks for, s, capped."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value.strip()), MAX_RETRY_AFTER_S)
    with suppress(ValueError, TypeError):
        return min(
            max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()), MAX_RETRY_AFTER_S
        )
    return 0.0
