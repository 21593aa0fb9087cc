"""The tables of a download shard's next version: rows fetched now, combined with those of the previous version."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from corgi.download.shard_tables import KEPT, REJECTED, LedgerRow, ShardTables
from corgi.flow.amend import Amendment
from corgi.tables.arrow import is_in, pc
from corgi.tables.attempt import Attempt
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask, Store
from corgi.tables.taken_down import TakenDown, read_taken_down


def commit_tables(
    attempt: Attempt, tables: ShardTables, timings: Mapping[str, object] | None = None
) -> ShardManifest:
    """Write the tables of a download shard and publish its manifest."""
    attempt.write_table("images", tables.images)
    attempt.write_table("captions", tables.captions)
    attempt.write_table("ledger", tables.ledger)
    return attempt.commit(tables.rows, tables.facts, timings)


def to_fetch(store: Store, task: ShardTask, planned: pa.Table) -> pa.Table:
    """Return the rows of a plan that this task fetches: all, or those that failed before for the reasons to retry."""
    amend = task.payload.get("amend")
    if amend is None:
        return planned
    return planned.filter(is_in(planned["uid"], _failed(store, amend)))


def amended(store: Store, task: ShardTask, fetched: ShardTables | None) -> ShardTables:
    """Return a shard's tables: rows fetched now, combined with those of the previous version, without rows taken down."""
    amend = task.payload.get("amend")
    taken = read_taken_down(store.storage)
    if amend is None:
        assert fetched is not None
        return _rejecting(fetched, taken)
    before = store.read_shard(amend["before"])
    leave = _failed(store, amend) if fetched is not None else set(taken.uids)
    tables = {}
    for name, keys in (("images", ["uid"]), ("captions", ["uid", "ordinal"]), ("ledger", ["source", "row"])):
        old = store.read(before, name)
        kept = old.filter(pc.invert(is_in(old["uid"], leave)))
        new = [] if fetched is None else [getattr(fetched, name).select(old.column_names).cast(old.schema)]
        tables[name] = pa.concat_tables([kept, *new]).sort_by([(key, "ascending") for key in keys])
    facts = _facts(before.facts, fetched.facts if fetched else {}, tables)
    made = ShardTables(**tables, rows=counts(tables["ledger"]), facts=facts)
    return _rejecting(made, taken)


def counts(ledger: pa.Table) -> RowCounts:
    """Return the row counts of a ledger."""
    reasons = Counter(
        Reason(row["reason"])
        for row in ledger.select(["status", "reason"]).to_pylist()
        if row["status"] == REJECTED
    )
    kept = ledger.num_rows - sum(reasons.values())
    return RowCounts(rows_in=ledger.num_rows, kept=kept, rejected=_dict(reasons))


def _failed(store: Store, amend: Amendment) -> set[str]:
    """Return the uids that the previous version rejected for one of the reasons to retry."""
    if "retry" not in amend:
        return set()
    ledger = store.read(store.read_shard(amend["before"]), "ledger", ["uid", "reason"])
    return set(ledger.filter(is_in(ledger["reason"], set(amend["retry"])))["uid"].to_pylist())


def _rejecting(tables: ShardTables, taken: TakenDown) -> ShardTables:
    """Reject images whose bytes were taken down, whichever URL they came from."""
    images = tables.images
    named = is_in(images["sha256"], taken.hashes)
    uids = set(images.filter(named)["uid"].to_pylist())
    if not uids:
        return tables
    rows = [_taken(row) if row["uid"] in uids else row for row in tables.ledger.to_pylist()]
    ledger = pa.Table.from_pylist(rows, schema=tables.ledger.schema)
    captions = tables.captions
    left = {
        "images": images.filter(pc.invert(named)),
        "captions": captions.filter(pc.invert(is_in(captions["uid"], uids))),
        "ledger": ledger,
    }
    return ShardTables(**left, rows=counts(ledger), facts=_facts(tables.facts, {}, left))


def _taken(row: LedgerRow) -> LedgerRow:
    return {**row, "status": REJECTED, "reason": Reason.TAKEN_DOWN, "detail": None}


def _facts(
    before: Mapping[str, object], more: Mapping[str, object], tables: dict[str, pa.Table]
) -> dict[str, object]:
    """Return the facts of a shard combined from two: sums, except for facts that are counted from the tables."""
    found = {name: _summed(before.get(name), more.get(name)) for name in {**before, **more}}
    ledger = tables["ledger"].select(["uid", "status", "reason"]).to_pylist()
    verdicts = {row["uid"]: row["reason"] if row["status"] == REJECTED else KEPT for row in ledger}
    reasons = Counter(verdict for verdict in verdicts.values() if verdict != KEPT)
    sizes = pc.sum(pc.binary_length(tables["images"]["image"])).as_py() or 0
    counted = {
        "planned": len(verdicts),
        "kept": tables["images"].num_rows,
        "rejected": dict(sorted(reasons.items())),
        "stored_bytes": sizes,
    }
    return {**found, **{name: value for name, value in counted.items() if name in found}}


def _summed(a: object, b: object) -> object:
    if isinstance(a, dict) and isinstance(b, dict):
        return {name: _summed(a.get(name), b.get(name)) for name in sorted({*a, *b})}
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a + b
    return a if b is None else b


def _dict(reasons: Counter[Reason]) -> dict[Reason, int]:
    return {reason: number for reason, number in sorted(reasons.items()) if number}
