"""Next generations of plan and download shards: failed rows fetched again, rows taken down; the rest is carried over."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from corgi.data.arrow import pc
from corgi.data.outcome import KEPT, REJECTED, ShardTables
from corgi.flow.dag import Context
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask, Store
from corgi.tables.taken_down import TakenDown, read_taken_down


def plan(context: Context, tasks: Sequence[ShardTask]) -> None:
    """Publish plan shards without the rows taken down; the list's rows they came from count as rejected."""
    taken = read_taken_down(context.store.storage)
    for task in tasks:
        before = context.store.read_shard(task.payload["amend"]["before"])
        table = without(context.store.read(before, "plan"), taken)
        splits = Counter(table["split"].to_pylist())
        facts = {**before.facts, "urls": table.num_rows}
        facts |= {split: splits[split] for split in ("train", "val", "test") if split in facts}
        with context.store.attempt(task) as attempt:
            attempt.write_table("plan", table)
            for entry in before.files:
                if entry.table != "plan":
                    attempt.write_table(entry.table, context.store.read(before, entry.table))
            attempt.commit(planned_rows(table, before.rows.rows_in), facts)


def without(plan: pa.Table, taken: TakenDown) -> pa.Table:
    """Return a plan without what was taken down."""
    if not (taken.uids or taken.urls):
        return plan
    return plan.filter(pc.invert(pc.or_(_is_in(plan["uid"], taken.uids), _is_in(plan["url"], taken.urls))))


def planned_rows(plan: pa.Table, rows_in: int) -> RowCounts:
    """Return the counts of a list's rows by what the plan says of them; rows it does not hold were taken down."""
    counted: Counter[str | None] = Counter()
    sizes = pc.list_value_length(plan["sources"]).to_pylist()
    for reason, size in zip(plan["reason"].to_pylist(), sizes, strict=True):
        counted[reason] += size
    kept = counted.pop(None, 0)
    rejected = Counter({Reason(reason): number for reason, number in counted.items() if reason is not None})
    rejected[Reason.TAKEN_DOWN] += rows_in - kept - sum(counted.values())
    return RowCounts(rows_in=rows_in, kept=kept, rejected=_dict(rejected))


def download(context: Context, tasks: Sequence[ShardTask]) -> None:
    """Publish download shards anew: by fetching what failed, or without the rows taken down."""
    from corgi.data.download import fetch_shards

    retried = [task for task in tasks if "retry" in task.payload["amend"]]
    if retried:
        fetch_shards(context, retried)
    for task in tasks:
        if "retry" in task.payload["amend"]:
            continue
        tables = amended(context.store, task, None)
        with context.store.attempt(task) as attempt:
            commit_tables(attempt, tables)


def commit_tables(attempt: Any, tables: ShardTables, timings: dict[str, float] | None = None) -> Any:
    """Write the tables of a download shard and publish its manifest."""
    attempt.write_table("images", tables.images)
    attempt.write_table("captions", tables.captions)
    attempt.write_table("ledger", tables.ledger)
    return attempt.commit(tables.rows, tables.facts, timings)


def to_fetch(store: Store, task: ShardTask, planned: pa.Table) -> pa.Table:
    """Return the rows of a plan that this task asks the network for: all, or those that failed for the reasons named."""
    amend = task.payload.get("amend")
    if amend is None:
        return planned
    return planned.filter(_is_in(planned["uid"], _failed(store, amend)))


def amended(store: Store, task: ShardTask, fetched: ShardTables | None) -> ShardTables:
    """Return a shard's tables: what was fetched now beside what the generation before holds, without what was taken down."""
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
        kept = old.filter(pc.invert(_is_in(old["uid"], leave)))
        new = [] if fetched is None else [getattr(fetched, name).select(old.column_names).cast(old.schema)]
        tables[name] = pa.concat_tables([kept, *new]).sort_by([(key, "ascending") for key in keys])
    facts = _facts(before.facts, fetched.facts if fetched else {}, tables)
    made = ShardTables(**tables, rows=counts(tables["ledger"]), facts=facts)
    return _rejecting(made, taken)


def counts(ledger: pa.Table) -> RowCounts:
    """Return the row counts a ledger says."""
    reasons = Counter(
        Reason(row["reason"])
        for row in ledger.select(["status", "reason"]).to_pylist()
        if row["status"] == REJECTED
    )
    kept = ledger.num_rows - sum(reasons.values())
    return RowCounts(rows_in=ledger.num_rows, kept=kept, rejected=_dict(reasons))


def _failed(store: Store, amend: dict[str, Any]) -> set[str]:
    """Return the uids that the generation before rejected for one of the reasons to retry."""
    if "retry" not in amend:
        return set()
    ledger = store.read(store.read_shard(amend["before"]), "ledger", ["uid", "reason"])
    return set(ledger.filter(_is_in(ledger["reason"], set(amend["retry"])))["uid"].to_pylist())


def _rejecting(tables: ShardTables, taken: TakenDown) -> ShardTables:
    """Reject pictures whose bytes were taken down, wherever they were found this time."""
    images = tables.images
    named = _is_in(images["sha256"], taken.hashes)
    uids = set(images.filter(named)["uid"].to_pylist())
    if not uids:
        return tables
    rows = [_taken(row) if row["uid"] in uids else row for row in tables.ledger.to_pylist()]
    ledger = pa.Table.from_pylist(rows, schema=tables.ledger.schema)
    captions = tables.captions
    left = {
        "images": images.filter(pc.invert(named)),
        "captions": captions.filter(pc.invert(_is_in(captions["uid"], uids))),
        "ledger": ledger,
    }
    return ShardTables(**left, rows=counts(ledger), facts=_facts(tables.facts, {}, left))


def _taken(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "status": REJECTED, "reason": Reason.TAKEN_DOWN, "detail": None}


def _facts(before: dict[str, Any], more: dict[str, Any], tables: dict[str, pa.Table]) -> dict[str, Any]:
    """Return the report's facts of a shard made of two: sums, but for what the tables themselves say."""
    found = {name: _summed(before.get(name), more.get(name)) for name in {**before, **more}}
    ledger = tables["ledger"].select(["uid", "status", "reason"]).to_pylist()
    verdicts = {row["uid"]: row["reason"] if row["status"] == REJECTED else KEPT for row in ledger}
    reasons = Counter(verdict for verdict in verdicts.values() if verdict != KEPT)
    sizes = pc.sum(pc.binary_length(tables["images"]["image"])).as_py() or 0
    told = {
        "planned": len(verdicts),
        "kept": tables["images"].num_rows,
        "rejected": dict(sorted(reasons.items())),
        "stored_bytes": sizes,
    }
    return {**found, **{name: value for name, value in told.items() if name in found}}


def _summed(a: Any, b: Any) -> Any:
    if isinstance(a, dict) and isinstance(b, dict):
        return {name: _summed(a.get(name), b.get(name)) for name in sorted({*a, *b})}
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a + b
    return a if b is None else b


def _is_in(column: pa.ChunkedArray, names: set[str] | frozenset[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(sorted(names), pa.string()))


def _dict(reasons: Counter[Reason]) -> dict[Reason, int]:
    return {reason: number for reason, number in sorted(reasons.items()) if number}
