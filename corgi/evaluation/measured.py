"""The kept images of a run as evaluation uses them: vectors, full and coarse captions, groups and splits."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from corgi.clip.references import model_shard
from corgi.tables.arrow import is_in, pc
from corgi.tables.embedded import EmbeddedShard, ListedSet, embedded_set, first_rows, vectors_of
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store

HAVE_MODELS = ("embed", "shift", "prior", "autoencoder", "decoder")
"""Stages whose first shard is read for its model or its settings."""


@dataclass(frozen=True)
class Pictures:
    """Kept pictures that have a full caption, sorted by uid within each shard.

    `learnable` is whether a picture's caption may be used for training: all but those withheld by curate.caption_share. `text` is the
    embedding of the first full caption. `coarse` is the first coarse caption, if any, and `coarse_text` its embedding, else that of
    the full caption. `saved` are the further columns of the list that the plan kept, by name.
    """

    uid: list[str]
    split: list[str]
    group: list[str]
    learnable: Bool[np.ndarray, "rows"]
    image: Float[np.ndarray, "rows dim"]
    caption: list[str]
    text: Float[np.ndarray, "rows dim"]
    coarse: list[str | None]
    coarse_text: Float[np.ndarray, "rows dim"]
    saved: list[dict[str, str | None]] = field(default_factory=list[dict[str, str | None]])

    @property
    def train(self) -> Int[np.ndarray, "chosen"]:
        """Return the rows of the train pictures whose captions may be used for training."""
        return np.flatnonzero(self.learnable & (np.array(self.split) == Split.TRAIN.value))

    def one_a_group(self, split: Split, limit: int) -> Int[np.ndarray, "chosen"]:
        """Return the first learnable row of each group of a split, by uid: a concept with many variants counts once."""
        rows = np.flatnonzero(self.learnable & (np.array(self.split) == split.value))
        first = rows[list(first_rows(self.group[row] for row in rows).values())]
        return first[np.argsort(np.array(self.uid)[first], kind="stable")][:limit]

    def by_coarse(self, least: int) -> dict[str, Int[np.ndarray, "rows"]]:
        """Return the rows of each coarse caption that at least `least` images share, sorted by caption."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, caption in enumerate(self.coarse):
            if caption is not None:
                rows[caption].append(row)
        return {caption: np.array(own) for caption, own in sorted(rows.items()) if len(own) >= least}


def load_pictures(store: Store, shards: ListedSet, limit: int) -> Pictures:
    """Read whole shards of download, embed and curate in order until there are at least `limit` pictures."""
    return read_pictures(embedded_set(store, shards), limit)


def read_pictures(shards: Iterable[EmbeddedShard], limit: int) -> Pictures:
    """Read whole shards in order until there are at least `limit` pictures."""
    parts: list[Pictures] = []
    for shard in shards:
        parts.append(_shard(shard))
        if sum(len(part.uid) for part in parts) >= limit:
            break

    def every(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return (
            np.concatenate(values)
            if isinstance(values[0], np.ndarray)
            else [v for part in values for v in part]
        )

    return Pictures(**{part.name: every(part.name) for part in fields(Pictures)})


def _shard(shard: EmbeddedShard) -> Pictures:
    images, captions, texts = shard.images(), shard.captions(), shard.caption_texts()
    first = first_rows(zip(captions["uid"].to_pylist(), captions["kind"].to_pylist(), strict=True))
    images = images.filter(is_in(images["uid"], {uid for uid, kind in first if kind == "full"}))
    uids, withheld = images["uid"].to_pylist(), shard.withheld()
    full = [first[uid, "full"] for uid in uids]
    coarse = [first.get((uid, "coarse")) for uid in uids]
    ordinals = captions["ordinal"].to_pylist()
    text = vectors_of(captions, "text")
    facts = shard.facts(["uid", "group", "additional"])
    group = dict(zip(facts["uid"].to_pylist(), facts["group"].to_pylist(), strict=True))
    saved = saved_columns(facts)
    return Pictures(
        uid=uids,
        split=images["split"].to_pylist(),
        group=[group[uid] for uid in uids],
        learnable=np.array([uid not in withheld for uid in uids], bool),
        image=vectors_of(images, "image"),
        caption=[texts[uid, ordinals[row]] for uid, row in zip(uids, full, strict=True)],
        text=text[full],
        coarse=[
            None if row is None else texts[uid, ordinals[row]] for uid, row in zip(uids, coarse, strict=True)
        ],
        coarse_text=text[[own if row is None else row for own, row in zip(full, coarse, strict=True)]],
        saved=[saved[uid] for uid in uids],
    )


def saved_columns(facts: pa.Table) -> dict[str, dict[str, str | None]]:
    """Return the further columns of the list by uid; `facts` must have the columns uid and additional."""
    pairs = zip(facts["uid"].to_pylist(), facts["additional"].to_pylist(), strict=True)
    return {uid: dict(columns or ()) for uid, columns in pairs}


def trained_concepts(store: Store, shards: ListedSet, column: str) -> frozenset[str]:
    """Return the values of a saved column over all stored train pictures, captioned or not.

    Pictures that curate drops are included: a tower is trained before curate, on every captioned train picture.
    """
    concepts: set[str] = set()
    for shard in embedded_set(store, shards):
        facts = shard.facts(["uid", "split", "additional"])
        train = saved_columns(facts.filter(pc.equal(facts["split"], Split.TRAIN.value)))
        concepts |= {concept for saved in train.values() if (concept := saved.get(column)) is not None}
    return frozenset(concepts)


def models_in(store: Store, stages: Mapping[str, StageManifest]) -> dict[str, list[ShardManifest]]:
    """Return, by stage, the shard that contains its model or, for embed, its settings; no other shard is opened."""
    models = {
        name: [store.read_shard(stage.shards[0].path)]
        for name, stage in stages.items()
        if name in HAVE_MODELS
    }
    if "tower" in stages:
        shard = model_shard(store.each_listed(stages["tower"]))
        models["tower"] = [] if shard is None else [store.read_shard(shard.path)]
    return models


def tables_in(store: Store, stages: Mapping[str, StageManifest]) -> dict[str, list[ListedShard]]:
    """Return the shards of the embedded and curated set and of its latents, from the stages' indexes."""
    tables = {name: store.listed(stages[name]) for name in ("download", "embed", "curate", "autoencoder")}
    return {**tables, "autoencoder": tables["autoencoder"][1:]}  # the first is the model
