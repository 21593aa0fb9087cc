"""The plan's next version: its shards without the rows taken down."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from corgi.flow.batches import over_batches
from corgi.flow.context import Context
from corgi.tables.arrow import is_in, pc
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask, Store
from corgi.tables.taken_down import TakenDown, read_taken_down


def revise(context: Context, tasks: Sequence[ShardTask]) -> None:
    """Publish plan shards without the rows taken down; the list rows from which they came count as rejected."""
    for _ in over_batches(context.recipe, revised, tasks, context.store.location, "plan", size=1):
        pass


def revised(root: str, tasks: list[ShardTask]) -> list[str]:
    """Publish the next version of some plan shards; return their names."""
    store = Store(root)
    taken = read_taken_down(store.storage)
    for task in tasks:
        before = store.read_shard(task.payload["amend"]["before"])
        table = without(store.read(before, "plan"), taken)
        splits = Counter(table["split"].to_pylist())
        facts = {**before.facts, "urls": table.num_rows}
        facts |= {split: splits[split] for split in ("train", "val", "test") if split in facts}
        with store.attempt(task) as attempt:
            attempt.write_table("plan", table)
            for entry in before.files:
                if entry.table != "plan":
                    attempt.write_table(entry.table, store.read(before, entry.table))
            attempt.commit(planned_rows(table, before.rows.rows_in), facts)
    return [task.shard for task in tasks]


def without(plan: pa.Table, taken: TakenDown) -> pa.Table:
    """Return a plan without the rows taken down."""
    if not (taken.uids or taken.urls):
        return plan
    return plan.filter(pc.invert(pc.or_(is_in(plan["uid"], taken.uids), is_in(plan["url"], taken.urls))))


def planned_rows(plan: pa.Table, rows_in: int) -> RowCounts:
    """Return the counts of list rows by their state in the plan; rows that are missing in it were taken down."""
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
