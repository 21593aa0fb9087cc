"""The features stage: hashes and domains for finding duplicates, without the images."""

from collections.abc import Sequence

import pyarrow as pa

from corgi.curation.domains import registered_domains
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.tasks import Tasks, values_of
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import FEATURES
from corgi.tables.store import ShardTask, Store

SHARDS_PER_CALL = 8
_READ = ["uid", "sha256", "phash", "url", "split"]


def run(context: Context) -> list[ShardTask]:
    """Commit one `features` table per shard of the download."""
    tasks = context.partitioned()
    pending = context.pending(tasks)
    if pending:
        connect(context.recipe)
        calls = Tasks()
        groups = [pending[at : at + SHARDS_PER_CALL] for at in range(0, len(pending), SHARDS_PER_CALL)]
        values_of([calls.start(commit_features, group) for group in groups], "features")
    return tasks


def commit_features(tasks: Sequence[ShardTask]) -> int:
    """Commit the features of some shards; return the number of shards."""
    for task in tasks:
        store = Store(task.root)
        (path,) = task.inputs["download"]
        table = features(store.read(store.read_shard(path), "images", _READ))
        with store.attempt(task) as attempt:
            attempt.write_table("features", table)
            attempt.commit(RowCounts(rows_in=table.num_rows, kept=table.num_rows))
    return len(tasks)


def features(images: pa.Table) -> pa.Table:
    """Return the FEATURES table of stored images, in their order."""
    domains = pa.array(registered_domains(images["url"].to_pylist()), pa.string())
    columns = {name: images[name] for name in ("uid", "sha256", "phash", "split")}
    return pa.table({**columns, "domain": domains}).select(FEATURES.names).cast(FEATURES)
