"""What Ray's bookkeeping of so many shards costs the driver: the real calls, with bodies that do nothing."""

import numpy as np

from corgi.flow.shards import Pool, make_shards
from corgi.shift.sums import Given, summed
from corgi.statistics.moments import Moments
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.store import ShardTask

_POOL = Pool(num_actors=2, cpus=0.5)
_CLUSTERS, _DIM = 16, 8


class Nothing:
    """A maker whose shards have no files; nothing is committed."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Return an empty shard."""
        return ShardManifest(
            stage=task.stage,
            shard=task.shard,
            key=task.key,
            version=task.version,
            code=task.code,
            settings={},
            inputs={},
            files=(),
            rows=RowCounts(rows_in=1, kept=1),
        )


def through_actors(tasks: list[ShardTask]) -> int:
    """Return the number of shards that a pool of actors made, as every stage's shards are made."""
    made: list[str] = []
    make_shards(Nothing, {}, tasks, _POOL, "fleet", lambda row: made.append(row["shard"]))
    return len(made)


def through_sums(names: list[str]) -> int:
    """Return the rows of a sum over shards of one row each, by the tree of tasks of the shift stage."""
    shards = [EmbeddedShard("root", name, "embed", "curate") for name in names]
    found = summed(_one_row, _both, shards, {}, "fleet")
    return 0 if found is None else int(found.count.sum())


def _one_row(shard: EmbeddedShard) -> Moments:
    zeros = np.zeros((_CLUSTERS, _DIM))
    return Moments(np.array([1] + [0] * (_CLUSTERS - 1)), zeros, zeros)


def _both(before: Moments, after: Moments, given: Given) -> Moments:
    return before.merge(after)
