"""What a fetch or a decoder returned, read without asking for its type first."""

from typing import Any

from corgi.fetching.response import Body
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason


def reason_of(result: Any) -> Reason | None:
    """Return why a row was rejected; None if it was not."""
    return result.reason if isinstance(result, Rejection) else None


def detail_of(result: Any) -> str:
    """Return the detail of a rejection; empty if there is none."""
    return result.detail if isinstance(result, Rejection) else ""


def body_of(result: Any) -> bytes | None:
    """Return the fetched bytes; None if there are none."""
    return result.data if isinstance(result, Body) else None
