"""Why a row is rejected, at any step from its URL to a stored image."""

from dataclasses import dataclass

from corgi.tables.schema import Reason


@dataclass(frozen=True)
class Rejection:
    """A reason of the closed list; detail is a template without addresses, sizes or times.

    http_status and num_bytes describe the response, as the ledger stores them; None if there was none.
    """

    reason: Reason
    detail: str = ""
    http_status: int | None = None
    num_bytes: int | None = None
