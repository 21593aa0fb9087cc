"""Rows read shard by shard from the tables of embed: for the comparison, and for decoders older than the training table."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int

from corgi.feeding.captions import side_by_side
from corgi.feeding.feed import Rows
from corgi.models.neighbours import Neighbours
from corgi.tables.embedded import EmbeddedShard, rows_of, vectors_of
from corgi.tables.schema import Split
from corgi.tables.split_counts import of_facts
from corgi.tables.store import Store
from corgi.tables.vectors import matrix


def embedded_shards(root: str, inputs: Mapping[str, Sequence[str]]) -> list[EmbeddedShard]:
    """Return the shards of a task's `embed` and `curate` inputs, which are manifest paths."""
    paths = zip(inputs["embed"], inputs["curate"], strict=True)
    return [EmbeddedShard(root, str(unit), *pair) for unit, pair in enumerate(paths)]


def listed_shards(root: str, stages: Mapping[str, str]) -> list[EmbeddedShard]:
    """Return the shards of the stages `embed` and `curate` from the stages' indexes; `stages` are the paths of their manifests."""
    store = Store(root)
    listed = [store.each_listed(store.read_stage(stages[name])) for name in ("embed", "curate")]
    return [
        EmbeddedShard(root, str(unit), embed.path, curate.path, counted=of_facts(curate.facts))
        for unit, (embed, curate) in enumerate(zip(*listed, strict=True))
    ]


class PriorRows:
    """Kept pictures of a split that have a full caption: image vector and padded caption vectors."""

    def __init__(self, shards: Sequence[EmbeddedShard], split: Split) -> None:
        """Read each shard's number of rows; vectors are read when a unit is loaded."""
        self._shards, self._split = shards, split
        self.counts: Sequence[int] = [shard.counts()[split].captioned for shard in shards]

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d], `full` and `coarse` [n, captions, d] padded with zeros to the largest number of captions, and their counts."""
        shard = self._shards[unit]
        images, captions = shard.captioned_images(self._split), shard.captions()
        loaded, num_rows = {"image": vectors_of(images, "image")}, images.num_rows
        text = vectors_of(captions, "text")
        owner = rows_of(captions["uid"].to_pylist(), images["uid"].to_pylist())
        for kind in ("full", "coarse"):
            mine = (np.asarray(captions["kind"]) == kind) & (owner >= 0)
            loaded[kind], loaded[f"num_{kind}"] = side_by_side(text[mine], owner[mine], num_rows)
        return loaded


class DecoderRows:
    """Kept pictures of a split: image vector and latent, as decoders read them before the training table existed."""

    def __init__(self, shards: Sequence[EmbeddedShard], latents: Sequence[str], split: Split) -> None:
        """Read each shard's number of rows; vectors and latents are read when a unit is loaded."""
        self._shards, self._latents, self._split = shards, latents, split
        self.counts: Sequence[int] = [shard.counts()[split].images for shard in shards]

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d] and `latent` [n, l]."""
        shard = self._shards[unit]
        images = shard.images(self._split)
        store = Store(shard.root)
        latents = store.read(store.read_shard(self._latents[unit]), "latents")
        rows = rows_of(images["uid"].to_pylist(), latents["uid"].to_pylist())
        if (rows < 0).any():
            raise AssertionError(f"shard {unit}: a kept picture has no latent")
        return {"image": vectors_of(images, "image"), "latent": matrix(latents["latent"])[rows]}

    def uids(self, unit: int) -> list[str]:
        """Return the uids of a unit's rows."""
        return self._shards[unit].images(self._split, ["uid"])["uid"].to_pylist()


class PictureVectors(Rows, Protocol):
    """Rows with `image` and `latent` whose pictures have uids."""

    def uids(self, unit: int) -> list[str]:
        """Return the uids of a unit's rows."""
        ...


class NeighbourRows:
    """The rows of a decoder with the latents of each row's neighbours among the train pictures."""

    def __init__(self, rows: PictureVectors, neighbours: Neighbours) -> None:
        """Take rows and index; the neighbours of a unit are searched when it is first loaded."""
        self._rows, self._neighbours = rows, neighbours
        self._nearest: dict[int, Int[np.ndarray, "n number"]] = {}
        self.counts = rows.counts

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d], `latent` [n, l] and `neighbours` [n, number, l]."""
        loaded = self._rows.load(unit)
        if unit not in self._nearest:
            self._nearest[unit] = self._neighbours.nearest(loaded["image"].astype(np.float32))
        return {**loaded, "neighbours": self._neighbours.latents(self._nearest[unit])}


def neighbours_among(rows: PictureVectors, number: int, max_cosine: float) -> Neighbours:
    """Return the search index of a decoder's train rows; ValueError if there are fewer than `number`."""
    units = [unit for unit, count in enumerate(rows.counts) if count]
    loaded = [rows.load(unit) for unit in units]
    image, latent = (
        np.concatenate([unit[name] for unit in loaded]).astype(np.float32) for name in ("image", "latent")
    )
    uid = [uid for unit in units for uid in rows.uids(unit)]
    return Neighbours(uid, image, latent, number, max_cosine)
