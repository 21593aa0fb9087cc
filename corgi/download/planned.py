"""A shard's rows by what the plan says of them: settled already, pictures that are there, URLs to ask for."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from corgi.download.shard_tables import Outcome
from corgi.planning.blocklist import HashBlocklist
from corgi.tables.arrow import pc
from corgi.tables.manifest import ShardManifest
from corgi.tables.schema import REQUEST_URL, Reason
from corgi.tables.store import Store

Ask = Callable[[pa.Table], Sequence[Outcome]]
"""What turns the `url` column of some rows of a plan into outcomes, in order."""
_SETTLED = "settled by the plan"


def outcomes_of(plan: pa.Table, fetch: Ask, read: Ask, blocked: HashBlocklist) -> list[Outcome]:
    """Return one outcome a row of a plan, in order.

    Args:
        plan: PLAN rows, with or without REQUEST_URL.
        fetch: asks for the URLs of rows, as they are asked for.
        read: reads the pictures of rows whose `url` column holds their location.
        blocked: content that is refused whoever gave it.

    """
    reasons, locations = plan["reason"].to_pylist(), plan["location"].to_pylist()
    found: dict[int, Outcome] = {
        row: Outcome(reason=Reason(reason), detail=_SETTLED) for row, reason in enumerate(reasons) if reason
    }
    open_rows = [row for row in range(plan.num_rows) if row not in found]
    for rows, ask in (
        ([row for row in open_rows if locations[row] is None], fetch),
        ([row for row in open_rows if locations[row] is not None], read),
    ):
        if rows:
            part = plan.take(pa.array(np.array(rows, np.int64)))
            part = _by_request(part) if ask is fetch else _by_location(part)
            found |= dict(zip(rows, (_judged(one, blocked) for one in ask(part)), strict=True))
    return [found[row] for row in range(plan.num_rows)]


def blocked_hashes(store: Store, first: ShardManifest) -> HashBlocklist:
    """Return the refused content that the plan keeps beside its first shard."""
    if all(entry.table != "blocked_hashes" for entry in first.files):
        return HashBlocklist()
    return HashBlocklist.of(store.read(first, "blocked_hashes")["hash"].to_pylist())


def _by_request(part: pa.Table) -> pa.Table:
    """Return rows whose `url` is the one that is asked for."""
    if REQUEST_URL.name not in part.column_names:
        return part
    asked = pc.coalesce(part[REQUEST_URL.name], part["url"])
    return part.set_column(part.schema.get_field_index("url"), "url", asked)


def _by_location(part: pa.Table) -> pa.Table:
    return part.set_column(part.schema.get_field_index("url"), "url", part["location"])


def _judged(outcome: Outcome, blocked: HashBlocklist) -> Outcome:
    picture = outcome.picture
    if picture is None or not blocked.kinds:
        return outcome
    if blocked.holds([f"sha256:{picture.sha256}", f"phash:{picture.phash}"]).any():
        return replace(outcome, picture=None, reason=Reason.BLOCKED_HASH, detail="listed in block_hashes")
    return outcome
