"""The download stage's next version: failed rows fetched again, rows taken down; the rest is carried over."""

from collections.abc import Sequence

from corgi.download.carried import amended, commit_tables
from corgi.download.stage import fetch_shards
from corgi.flow.context import Context
from corgi.tables.store import ShardTask


def revise(context: Context, tasks: Sequence[ShardTask]) -> None:
    """Publish new versions of download shards: with failed rows fetched again, or without the rows taken down."""
    retried = [task for task in tasks if "retry" in task.payload["amend"]]
    if retried:
        fetch_shards(context, retried)
    for task in tasks:
        if "retry" in task.payload["amend"]:
            continue
        tables = amended(context.store, task, None)
        with context.store.attempt(task) as attempt:
            commit_tables(attempt, tables)
