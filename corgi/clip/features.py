"""Frozen features of pictures and full captions, computed once per shard: the rows on which a tower's heads are trained."""

import dataclasses
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from torch import nn

from corgi.clip.backbones import load_trunks, portable_config
from corgi.clip.embed import embed_captions, embed_pictures
from corgi.clip.frozen_features import feature_key, feature_shard
from corgi.clip.towers import UNTRAINED, Tokenizer, Tower, Transform, build_model
from corgi.clip.vectors import Vectors, column, matrix
from corgi.flow.context import Context
from corgi.settings.clip import EmbedSettings, TowerRef, TowerSettings
from corgi.statistics.moments import Moments
from corgi.tables.manifest import RowCounts, ShardEntry, ShardManifest
from corgi.tables.schema import Reason, Split, vector
from corgi.tables.store import ShardTask, Store

_COUNTS_FACT = "counts"
MOMENTS = "moments"
"""Table of a shard: for each channel of its train pictures' features, the mean and the sum of squared deviations, float64."""


def frozen_model(settings: TowerSettings) -> tuple[nn.Module, Transform, Tokenizer]:
    """Return the open_clip model of a tower to train, with pretrained trunks and untrained heads, and its transform and tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(portable_config(settings)))
        built = build_model(TowerRef(name="frozen", model="own", pretrained=UNTRAINED, config=str(path)))
    load_trunks(built[0])
    return built


def tower_settings(context: Context) -> TowerSettings:
    """Return the recipe's tower section; a pipeline without that section has no tower stage."""
    settings = context.recipe.tower
    assert settings is not None
    return settings


def feature_task(context: Context, download: ShardEntry) -> ShardTask:
    """Return the task of one download shard's features; its key does not depend on settings that only affect the heads."""
    settings = tower_settings(context)
    task = context.task(feature_shard(download), inputs={"download": [download]})
    return dataclasses.replace(task, key=feature_key(settings, task.version, download))


class FeatureShards:
    """Ray Data actor: the frozen trunks, loaded once; each call commits one shard's features."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """Load both trunks; the heads are replaced by identities."""
        self.settings = TowerSettings.model_validate(settings)
        model, preprocess, tokenizer = frozen_model(self.settings)
        model.get_submodule("visual").add_module("head", nn.Identity())
        model.get_submodule("text").add_module("proj", nn.Identity())
        self.tower = Tower("frozen", model, preprocess, tokenizer)

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `pictures` and `captions` of the train and val pictures that have a full caption."""
        store = Store(task.root)
        download = store.read_shard(task.inputs["download"][0])
        images, captions = learnable(store, download)
        start = time.perf_counter()
        batch = self.settings.feature_batch
        pictures = embed_pictures([self.tower], images["image"].to_pylist(), EmbedSettings(batch_size=batch))
        texts = embed_captions([self.tower], captions["caption"].to_pylist(), batch)
        seconds = {"features_s": time.perf_counter() - start}
        picture_table = _with_features(images.select(["uid", "split", "group"]), pictures)
        caption_table = _with_features(captions.select(["uid", "ordinal"]), texts)
        picture_table, caption_table = _paired(picture_table, caption_table)
        kept = picture_table.num_rows
        rejected = {Reason.BAD_VECTOR: images.num_rows - kept} if kept < images.num_rows else {}
        with store.attempt(task) as attempt:
            attempt.write_table("pictures", picture_table)
            attempt.write_table("captions", caption_table)
            attempt.write_table(MOMENTS, moments_table(train_moments(picture_table)))
            return attempt.commit(
                RowCounts(rows_in=images.num_rows, kept=kept, rejected=rejected),
                facts=FeatureCounts.of(picture_table, caption_table).as_facts(),
                timings=seconds,
            )


def learnable(store: Store, download: ShardManifest) -> tuple[pa.Table, pa.Table]:
    """Return the train and val pictures of a shard that have a full caption, and those captions."""
    captions = store.read(download, "captions", ["uid", "ordinal", "caption", "kind"])
    images = store.read(download, "images", ["uid", "split", "group", "image"])
    images = images.filter(pc.field("split").isin([Split.TRAIN.value, Split.VAL.value]))
    return _paired(images, captions.filter(pc.field("kind") == "full"))


@dataclass(frozen=True)
class FeatureCounts:
    """What a training needs to know of a shard before it reads a row: pictures by split, and the largest number of captions of one picture."""

    pictures: Mapping[str, int]
    most_captions: int

    @classmethod
    def of(cls, pictures: pa.Table, captions: pa.Table) -> Self:
        """Count the rows of a shard's tables, from `split` of the pictures and `uid` of the captions."""
        by_split = Counter(pictures["split"].to_pylist())
        most = max(Counter(captions["uid"].to_pylist()).values(), default=0)
        return cls({split.value: by_split[split.value] for split in Split}, most)

    @classmethod
    def read(cls, store: Store, shard: ShardManifest) -> Self:
        """Return the counts in a shard's facts; a shard made by version 0.1 has none, and its tables are counted."""
        counts = shard.facts.get(_COUNTS_FACT)
        if counts is not None:
            return cls(**counts)
        return cls.of(store.read(shard, "pictures", ["split"]), store.read(shard, "captions", ["uid"]))

    def as_facts(self) -> dict[str, object]:
        """Return the counts as a shard's facts."""
        return {_COUNTS_FACT: {"pictures": dict(self.pictures), "most_captions": self.most_captions}}


def train_moments(pictures: pa.Table) -> Moments:
    """Return the moments of the train pictures' features, from the columns `split` and `feature`."""
    return Moments.of(matrix(pictures.filter(pc.field("split") == Split.TRAIN.value)["feature"]))


def moments_table(moments: Moments) -> pa.Table:
    """Return `mean` and `second` as a table of one row per channel; the number of pictures is in the shard's counts."""
    return pa.table({"mean": moments.mean, "second": moments.second})


def stored_moments(store: Store, shard: ShardManifest, count: int) -> Moments | None:
    """Return the stored moments of a shard's `count` train pictures; None if the shard was made before moments were stored."""
    if not any(entry.table == MOMENTS for entry in shard.files):
        return None
    table = store.read(shard, MOMENTS)
    return Moments(np.asarray(count, np.int64), *(table[name].to_numpy() for name in ("mean", "second")))


def _paired(pictures: pa.Table, captions: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the pictures that have a caption, and the captions that have a picture."""
    pictures = pictures.filter(pc.field("uid").isin(captions["uid"].unique()))
    return pictures, captions.filter(pc.field("uid").isin(pictures["uid"].unique()))


def _with_features(named: pa.Table, vectors: Vectors) -> pa.Table:
    """Return the rows of good vectors with their raw features, half floats."""
    (unit,), (norm,) = vectors.unit.values(), vectors.norm.values()
    good = np.flatnonzero(vectors.is_good())
    raw: Float[np.ndarray, "n dim"] = unit[good] * norm[good, None]
    return named.take(good).append_column(pa.field("feature", vector(raw.shape[1])), column(raw))
