"""The commit of a whole stage: its manifest and its index, which list the newest version of every shard."""

import time
from collections.abc import Iterator, Sequence

from corgi.flow.code import code_digest, git_commit
from corgi.flow.context import Context
from corgi.settings.errors import StorageError
from corgi.tables.manifest import RowCounts, ShardEntry, StageManifest
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store


def run_and_close(context: Context) -> StageManifest:
    """Run a stage and close it with the seconds that the run took."""
    started = time.monotonic()
    tasks = context.stage.run(context)
    return close(context, tasks, time.monotonic() - started)


def close(
    context: Context,
    tasks: Sequence[ShardTask],
    seconds: float | None = None,
    before: StageManifest | None = None,
) -> StageManifest:
    """Publish a stage's manifest and index; `seconds` is how long its run took.

    The contents of manifests that `before` lists are read from its index, so that only those of new versions are opened.

    Raises:
        StorageError: a shard is not committed.

    """
    paths = context.store.committed(context.stage.name, [task.key for task in tasks])
    for task in tasks:
        if task.key not in paths:
            raise StorageError(
                f"{task.stage} ended without committing shard {task.shard}; other shards are safe; run the same command again"
            )
    listed: list[ListedShard] = []
    entries: list[ShardEntry] = []
    rows = RowCounts(rows_in=0, kept=0)
    for shard, entry in _told(context.store, [paths[task.key] for task in tasks], before):
        listed.append(shard)
        entries.append(entry)
        rows = rows + shard.rows
    manifest = StageManifest(
        stage=context.stage.name,
        key=context.key,
        version=context.stage.version,
        code=code_digest(),
        commit=git_commit(),
        settings=context.settings,
        inputs={name: found.path for name, found in context.inputs.items()},
        shards=tuple(entries),
        rows=rows,
        parts=context.parts,
        outside=context.outside,
        seconds=None if seconds is None else round(seconds, 3),
    )
    return context.store.close(context.store.indexed(manifest, listed))


def _told(
    store: Store, paths: Sequence[str], before: StageManifest | None
) -> Iterator[tuple[ListedShard, ShardEntry]]:
    """Yield the contents of the manifests at these paths, in order; only those that `before` does not list are opened."""
    known: dict[str, tuple[ListedShard, ShardEntry]] = {}
    if before is not None:
        listed = zip(store.each_listed(before), before.shards, strict=True)
        known = {shard.path: (shard, entry) for shard, entry in listed}
    new = [path for path in paths if path not in known]
    opened = store.each_of(new, store.read_shard)
    for path in paths:
        if path in known:
            yield known[path]
        else:
            shard = next(opened)
            yield ListedShard.of(shard), ShardEntry.of(shard)
