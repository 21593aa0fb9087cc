"""What became of one URL, and the arithmetic of one answer: byte caps, content encodings, waits. No network."""

import random
import zlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from corgi.tables.schema import Reason

FIRST_BACKOFF_S = 0.2
MAX_RETRY_AFTER_S = 10.0
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
