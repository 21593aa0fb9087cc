"""The rows on which a tower's heads are trained: a training gets their counts and moments as arguments, and opens no shard to count them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corgi.clip.features import FeatureCounts, stored_moments, train_moments
from corgi.clip.vectors import matrix
from corgi.feeding.captions import MAX_CAPTIONS, side_by_side
from corgi.statistics.moments import Moments, empty_moments
from corgi.tables.embedded import rows_of
from corgi.tables.manifest import ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import Store
from corgi.training.network_cost import IMAGE_FEATURES

MOMENT_SHARDS = 256
"""Largest number of shards whose moments are read, 20 kB each: those of a million pictures give a channel's mean within a thousandth of its standard deviation."""


class CountedShard(NamedTuple):
    """A feature shard by its manifest's path, with its number of pictures in two splits and the largest number of captions of one picture."""

    path: str
    train: int
    val: int
    most_captions: int

    def rows(self, split: Split) -> int:
        """Return the number of pictures of a split; a feature shard has none of test."""
        return {Split.TRAIN: self.train, Split.VAL: self.val}.get(split, 0)


class Told(TypedDict):
    """The arguments about features that a training's objective takes: one `CountedShard` per shard as a tuple, and one mean and std per channel."""

    features: Sequence[tuple[str, int, int, int]]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class FeatureSet:
    """All feature shards of a training, and the moments of train pictures' features."""

    shards: tuple[CountedShard, ...]
    images: Moments

    @classmethod
    def read(cls, store: Store, paths: Sequence[str]) -> Self:
        """Read the counts of the shards at these manifest paths, and the moments of at most `MOMENT_SHARDS` of them, many at a time.

        Moments are merged in the given order. If more shards have train pictures, evenly spaced ones are read. A shard
        that was made before moments were stored has its pictures read instead.
        """
        shards = tuple(store.each_of(paths, partial(_counted, store)))
        total = empty_moments((), IMAGE_FEATURES)
        for moments in store.each_of(measured(shards), partial(_moments, store)):
            total = total.merge(moments)
        return cls(shards, total)

    def as_arguments(self) -> Told:
        """Return the arguments of the workers' objective, as JSON."""
        return {
            "features": list(self.shards),
            "mean": self.images.mean.tolist(),
            "std": np.sqrt(self.images.variance).tolist(),
        }


class FeatureRows:
    """Pictures of a split with their captions' features: the rows on which the heads are trained or evaluated."""

    def __init__(self, root: str, shards: Sequence[CountedShard], split: Split) -> None:
        """Take the shards' counts; a shard is opened when its rows are loaded."""
        self._store, self._split, self._shards = Store(root), split, shards
        self.num_slots = min(MAX_CAPTIONS, max((shard.most_captions for shard in shards), default=0) or 1)
        self.counts: Sequence[int] = [shard.rows(split) for shard in shards]

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d], `text` [n, slots, e] padded with zeros, both half floats, and `num_texts` [n]."""
        shard = self._store.read_shard(self._shards[unit].path)
        pictures = self._pictures(shard, ["uid", "split", "feature"])
        captions = self._store.read(shard, "captions", ["uid", "feature"])
        owner = rows_of(captions["uid"].to_pylist(), pictures["uid"].to_pylist())
        features = matrix(captions["feature"]).astype(np.float16)[owner >= 0]
        text, num_texts = side_by_side(features, owner[owner >= 0], pictures.num_rows, self.num_slots)
        return {"image": matrix(pictures["feature"]).astype(np.float16), "text": text, "num_texts": num_texts}

    def groups(self, unit: int) -> list[str]:
        """Return the group of each row of a unit."""
        shard = self._store.read_shard(self._shards[unit].path)
        return self._pictures(shard, ["split", "group"])["group"].to_pylist()

    def _pictures(self, shard: ShardManifest, columns: list[str]) -> pa.Table:
        pictures = self._store.read(shard, "pictures", columns)
        return pictures.filter(pc.field("split") == self._split.value)


def measured(shards: Sequence[CountedShard]) -> list[CountedShard]:
    """Return the shards whose moments are read: all that have train pictures, or `MOMENT_SHARDS` of them, evenly spaced."""
    with_train = [shard for shard in shards if shard.train]
    picked = np.linspace(0, len(with_train) - 1, min(len(with_train), MOMENT_SHARDS)).astype(int)
    return [with_train[index] for index in picked]


def _counted(store: Store, path: str) -> CountedShard:
    counts = FeatureCounts.read(store, store.read_shard(path))
    return CountedShard(path, counts.pictures[Split.TRAIN], counts.pictures[Split.VAL], counts.most_captions)


def _moments(store: Store, counted: CountedShard) -> Moments:
    """Return the moments of a shard's train pictures, stored or computed."""
    shard = store.read_shard(counted.path)
    stored = stored_moments(store, shard, counted.train)
    return stored or train_moments(store.read(shard, "pictures", ["split", "feature"]))
