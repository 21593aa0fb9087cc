"""The download stage's next version: failed rows are fetched again, or rows are taken down; the rest is carried over."""

from collections.abc import Sequence

from corgi.download.carried import amended, commit_tables
from corgi.download.stage import fetch_shards
from corgi.flow.batches import over_batches
from corgi.flow.context import Context
from corgi.tables.store import ShardTask, Store


def revise(context: Context, tasks: Sequence[ShardTask]) -> None:
    """Publish new versions of download shards: with failed rows fetched again, or without the rows taken down."""
    retried = [task for task in tasks if "retry" in task.payload["amend"]]
    if retried:
        fetch_shards(context, retried)
    rest = [task for task in tasks if "retry" not in task.payload["amend"]]
    for _ in over_batches(context.recipe, revised, rest, context.store.location, "download", size=1):
        pass


def revised(root: str, tasks: list[ShardTask]) -> list[str]:
    """Publish the next version of some download shards without the rows taken down; return their names."""
    store = Store(root)
    for task in tasks:
        tables = amended(store, task, None)
        with store.attempt(task) as attempt:
            commit_tables(attempt, tables)
    return [task.shard for task in tasks]
