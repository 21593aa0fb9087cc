"""A shard's statistics in img2dataset's format: counts, seconds and a status dictionary, and additionally Corgi's reasons.

Seconds are stored only here: the file is next to the shard's manifest and is part of no digest.
"""

from collections import Counter
from collections.abc import Sequence
from http.client import responses

from corgi.download.planned import Outcome
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

DOWNLOAD_REASONS = frozenset(
    {
        Reason.BAD_URL,
        Reason.BLOCKED_ADDRESS,
        Reason.DNS,
        Reason.CONNECTION,
        Reason.HOST_UNAVAILABLE,
        Reason.TIMEOUT,
        Reason.TOO_MANY_REDIRECTS,
        Reason.HTTP_STATUS,
        Reason.TOO_LARGE,
        Reason.SHORT_BODY,
        Reason.OPTED_OUT,
        Reason.HASH_MISMATCH,
        Reason.ENGINE,
    }
)
"""Reasons that count as failed_to_download; all others count as failed_to_resize."""

_STRINGS: dict[Reason, str] = {
    Reason.BAD_URL: "unknown url type",
    Reason.DNS: "<urlopen error [Errno -2] Name or service not known>",
    Reason.CONNECTION: "<urlopen error [Errno 111] Connection refused>",
    Reason.TIMEOUT: "The read operation timed out",
    Reason.TOO_MANY_REDIRECTS: "HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite loop.",
    Reason.SHORT_BODY: "IncompleteRead",
    Reason.OPTED_OUT: "Use of image disallowed by X-Robots-Tag directive",
    Reason.HASH_MISMATCH: "hash mismatch",
    Reason.NOT_AN_IMAGE: "image decoding error",
    Reason.DECODE_FAILED: "image decoding error",
    Reason.TOO_SMALL: "image too small",
    Reason.TOO_MANY_PIXELS: "image area too large",
    Reason.ASPECT_RATIO: "aspect ratio too large",
}
_DETAILS: dict[tuple[Reason, str], str] = {
    (Reason.CONNECTION, "reset"): "[Errno 104] Connection reset by peer",
    (Reason.CONNECTION, "closed without an answer"): "Remote end closed connection without response",
    (Reason.CONNECTION, "no route"): "<urlopen error [Errno 101] Network is unreachable>",
    (
        Reason.CONNECTION,
        "certificate refused",
    ): "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>",
    (Reason.TIMEOUT, "no connection in time"): "<urlopen error timed out>",
}


def status_string(outcome: Outcome) -> str:
    """Return img2dataset's status string for an outcome, or Corgi's reason if the library has no such string."""
    if not isinstance(outcome, Rejection):
        return "success"
    if outcome.reason == Reason.HTTP_STATUS:
        status = outcome.http_status or 0
        return f"HTTP Error {status}: {responses.get(status, '')}"
    known = _STRINGS.get(outcome.reason, str(outcome.reason))
    return _DETAILS.get((outcome.reason, outcome.detail), known)


def shard_stats(outcomes: Sequence[Outcome], start_time: float, end_time: float) -> dict[str, object]:
    """Return a superset of img2dataset's `NNNNN_stats.json`; times are seconds since 1970, counts are URLs.

    count = successes + failed_to_download + failed_to_resize; `reasons` counts Corgi's reasons.
    """
    failed = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    num_undelivered = sum(rejection.reason in DOWNLOAD_REASONS for rejection in failed)
    num_bytes = sum(outcome.num_bytes or 0 for outcome in outcomes)
    duration = max(end_time - start_time, 1e-9)
    return {
        "count": len(outcomes),
        "successes": len(outcomes) - len(failed),
        "failed_to_download": num_undelivered,
        "failed_to_resize": len(failed) - num_undelivered,
        "duration": duration,
        "start_time": start_time,
        "end_time": end_time,
        "status_dict": dict(Counter(status_string(outcome) for outcome in outcomes).most_common()),
        "reasons": dict(Counter(str(rejection.reason) for rejection in failed).most_common()),
        "bytes": num_bytes,
        "img_per_sec": len(outcomes) / duration,
        "bytes_per_sec": num_bytes / duration,
        "fetch_and_decode_s": duration,
    }
