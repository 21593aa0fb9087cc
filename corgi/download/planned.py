"""One outcome per row of a plan: decided by the plan, read from an input, or fetched from the web."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from corgi.download.checks import RowChecks
from corgi.imaging.decode import StoredImage
from corgi.planning.blocklist import HashBlocklist
from corgi.tables.arrow import pc
from corgi.tables.manifest import ShardManifest
from corgi.tables.rejection import Rejection
from corgi.tables.schema import REQUEST_URL, Reason
from corgi.tables.store import Store

Outcome = StoredImage | Rejection
_SETTLED = "settled by the plan"


class Engine(Protocol):
    """Turns URLs, or locations in an input, into outcomes."""

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome per URL, in order; a body without the expected hash (`sha256:hex`) is rejected."""
        ...

    def close(self) -> None:
        """Close connections and end child processes."""
        ...


class KnownOutcomes:
    """Outcomes from earlier commits, as an engine that opens nothing. Its `urls` are canonical."""

    def __init__(self, by_url: Mapping[str, Outcome] | None = None) -> None:
        """Take the outcomes by canonical URL."""
        self._by_url = dict(by_url or {})
        self.num_taken = 0

    def __contains__(self, url: str) -> bool:
        """Return whether the outcome of a canonical URL is known."""
        return url in self._by_url

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome per URL, in order; their hashes were compared when the outcomes were taken over."""
        self.num_taken += len(urls)
        return [self._by_url[url] for url in urls]

    def close(self) -> None:
        """Do nothing."""


def outcomes_of(
    plan: pa.Table, web: Engine, inputs: Engine, checks: RowChecks, known: KnownOutcomes | None = None
) -> list[Outcome]:
    """Return one outcome per row of a plan, in order.

    Args:
        plan: PLAN rows, with or without REQUEST_URL.
        web: engine for the rows that have only a URL.
        inputs: engine for the rows whose image is in an input, by location.
        checks: the rules for all rows.
        known: outcomes that are already known.

    """
    there = known or KnownOutcomes()
    reasons, locations = plan["reason"].to_pylist(), plan["location"].to_pylist()
    outcomes: dict[int, Outcome] = {
        row: Rejection(Reason(reason), _SETTLED) for row, reason in enumerate(reasons) if reason
    }
    unsettled = [row for row in range(plan.num_rows) if row not in outcomes]
    urls = plan["url"].to_pylist()
    new = [row for row in unsettled if urls[row] not in there]
    for rows, engine, targets in (
        ([row for row in unsettled if urls[row] in there], there, plan["url"]),
        ([row for row in new if locations[row] is None], web, _request_urls(plan)),
        ([row for row in new if locations[row] is not None], inputs, plan["location"]),
    ):
        if rows:
            chosen = pa.array(np.array(rows, np.int64))
            part, urls_of_part = plan.take(chosen), targets.take(chosen)
            outcomes |= dict(zip(rows, checked_outcomes(engine, part, urls_of_part, checks), strict=True))
    return [outcomes[row] for row in range(plan.num_rows)]


def checked_outcomes(
    engine: Engine, plan: pa.Table, urls: pa.ChunkedArray, checks: RowChecks
) -> list[Outcome]:
    """Return one outcome per row of a plan whose URLs or locations are `urls`; every rule is checked either here or in the engine."""
    outcomes = [checks.before_request(_texts(captions)) for captions in plan["captions"].to_pylist()]
    requested = pa.array([outcome is None for outcome in outcomes], pa.bool_())
    targets = urls.filter(requested).to_pylist()
    results = iter(engine.outcomes(targets, _expected_hashes(plan.filter(requested))) if targets else ())
    return [_checked(next(results), checks) if outcome is None else outcome for outcome in outcomes]


def blocked_hashes(store: Store, first: ShardManifest) -> HashBlocklist:
    """Return the blocked hashes that the plan stores with its first shard."""
    if all(entry.table != "blocked_hashes" for entry in first.files):
        return HashBlocklist()
    return HashBlocklist.of(store.read(first, "blocked_hashes")["hash"].to_pylist())


def _checked(outcome: Outcome, checks: RowChecks) -> Outcome:
    return outcome if isinstance(outcome, Rejection) else checks.after_decoding(outcome)


def _request_urls(plan: pa.Table) -> pa.ChunkedArray:
    if REQUEST_URL.name not in plan.column_names:
        return plan["url"]
    return pc.coalesce(plan[REQUEST_URL.name], plan["url"])


def _texts(captions: list[dict[str, str]] | None) -> list[str]:
    return [entry["caption"] for entry in captions or ()]


def _expected_hashes(plan: pa.Table) -> list[str | None] | None:
    return plan["expected_hash"].to_pylist() if "expected_hash" in plan.column_names else None
