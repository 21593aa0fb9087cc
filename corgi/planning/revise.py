"""The plan's next generation: its shards without the rows taken down."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from corgi.flow.context import Context
from corgi.tables.arrow import is_in, pc
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask
from corgi.tables.taken_down import TakenDown, read_taken_down


def revise(context: Context, tasks: Sequence[ShardTask]) -> None:
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
    return plan.filter(pc.invert(pc.or_(is_in(plan["uid"], taken.uids), is_in(plan["url"], taken.urls))))


def planned_rows(plan: pa.Table, rows_in: int) -> RowCounts:
    """Return the counts of a list's rows by their state in the plan; rows that are missing there were taken down."""
    counted: Counter[str | None] = Counter()
    sizes = pc.list_value_length(plan["sources"]).to_pylist()
    for reason, size in zip(plan["reason"].to_pylist(), sizes, strict=True):
        counted[reason] += size
    kept = counted.pop(None, 0)
    rejected = Counter({Reason(reason): number for reason, number in counted.items() if reason is not None})
    rejected[Reason.TAKEN_DOWN] += rows_in - kept - sum(counted.values())
    return RowCounts(
        rows_in=rows_in,
        kept=kept,
        rejected={reason: number for reason, number in sorted(rejected.items()) if number},
    )
