"""Makes a stage's shards while its input is still being made, each as soon as its own input shard is committed."""

import time
from collections.abc import Sequence
from dataclasses import replace

from corgi.flow.context import Context
from corgi.flow.dag import Dag
from corgi.flow.stage import FollowingStage, Stage
from corgi.tables.manifest import RowCounts, ShardEntry, StageManifest
from corgi.tables.store import ShardTask

_LEAST_POLL_S, _POLL_SHARE = 0.3, 4.0
"""Shortest time between two reads of the store, s, also at least this multiple of the time that a read takes."""


def follow(dag: Dag, name: str) -> None:
    """Make a stage's shards until its partitioning stage is closed and no shard is left; the stage itself is not closed.

    A task has the same key as when the stage runs afterwards, so that the stage finds the shard done.
    """
    stage = next(stage for stage in dag.stages if stage.name == name)
    before = next(other for other in dag.stages if other.name == stage.partition)
    closed: dict[str, StageManifest] = {}
    for other in dag.stages:
        if other.name in (stage.name, before.name) or not set(other.inputs) <= set(closed):
            continue
        done = dag.store.stage(other.name, dag.context(other, closed).key)
        if done is not None:
            closed[other.name] = done
    source = _Source(dag, stage, dag.context(before, closed), closed)
    assert isinstance(stage, FollowingStage)
    stage.follow(source.context(), source.arriving)


class _Source:
    """The tasks of the following stage, as shards of the one before it are committed."""

    def __init__(self, dag: Dag, stage: Stage, before: Context, closed: dict[str, StageManifest]) -> None:
        self._dag, self._before = dag, before
        self._stage = dag.context(stage, {**closed, before.stage.name: self._closed_so_far([])})
        self._wanted = [task.key for task in before.partitioned()]
        self._entries: dict[str, ShardEntry] = {}
        self._given: set[str] = set()
        self._next_look = 0.0

    def arriving(self) -> tuple[list[ShardTask], bool]:
        """Return the new tasks and whether more may come; the store is read only as often as is cheap."""
        time.sleep(max(0.0, self._next_look - time.monotonic()))
        started = time.monotonic()
        is_closed = self._dag.store.stage(self._before.stage.name, self._before.key) is not None
        context = self.context()
        new = [task for task in context.pending(context.partitioned()) if task.key not in self._given]
        self._given |= {task.key for task in new}
        looked_s = time.monotonic() - started
        self._next_look = time.monotonic() + max(_LEAST_POLL_S, _POLL_SHARE * looked_s)
        return new, not is_closed

    def context(self) -> Context:
        """Return the stage's context with the shards committed so far."""
        store = self._dag.store
        paths = store.committed(self._before.stage.name, self._wanted)
        known = {entry.path for entry in self._entries.values()}
        new = {key: path for key, path in paths.items() if path not in known}
        for key, shard in zip(new, store.each_of(new.values(), store.read_shard), strict=True):
            self._entries[key] = ShardEntry.of(shard)
        so_far = self._closed_so_far([self._entries[key] for key in self._wanted if key in paths])
        return replace(self._stage, inputs={**self._stage.inputs, self._before.stage.name: so_far})

    def _closed_so_far(self, entries: Sequence[ShardEntry]) -> StageManifest:
        """Return the manifest of the preceding stage as if these were all its shards; tasks depend only on its shards."""
        return StageManifest(
            stage=self._before.stage.name,
            key=self._before.key,
            version=self._before.stage.version,
            code="",
            commit="",
            settings=self._before.settings,
            inputs={},
            shards=tuple(entries),
            rows=RowCounts(rows_in=0, kept=0),
            parts=self._before.parts,
        )
