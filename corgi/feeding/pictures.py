"""Training rows of pixels: kept pictures of a split, decoded to squares from the committed table `images`."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from corgi.imaging.decode import decode_stored
from corgi.tables.arrow import pc
from corgi.tables.manifest import Listing
from corgi.tables.schema import Split
from corgi.tables.split_counts import of_facts
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store

UNIT_PICTURES = 1024
"""Pictures per unit: part of a shard, since a whole shard of 10,000 pictures of 256 px would take 2 GB once decoded."""


class PictureSet:
    """The kept pictures of a run, opened by the indexes of download and curate; no shard's manifest is opened."""

    def __init__(
        self, store: Store, images: Iterable[ListedShard], selections: Iterable[ListedShard]
    ) -> None:
        """Take the shards as listed in their stages' indexes; pictures and selections are matched by name."""
        self.store = store
        by_name = {shard.shard: shard for shard in selections}
        pairs = [(shard, by_name[shard.shard]) for shard in images]
        self._counts = [of_facts(selection.facts) for _, selection in pairs]
        self._shards = pairs

    @classmethod
    def open(cls, root: str, stages: Mapping[str, str]) -> Self:
        """Open the stages `download` and `curate` by the paths of their manifests."""
        store = Store(root)
        images, selections = (
            store.each_listed(store.read_stage(stages[name])) for name in ("download", "curate")
        )
        return cls(store, images, selections)

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._shards)

    def num_kept(self, split: Split) -> list[int]:
        """Return the number of kept pictures of each shard, from the facts of its selection; for version 0.1, which has no such facts, count them."""
        return [
            self.kept(shard, split, []).num_rows if counts is None else counts[split].images
            for shard, counts in enumerate(self._counts)
        ]

    def kept(self, shard: int, split: Split, columns: Sequence[str]) -> pa.Table:
        """Return uid, split and further columns of the kept pictures of a shard that belong to a split."""
        kept = kept_pictures(self.store, *self._shards[shard], columns)
        return kept.filter(pc.field("split") == split.value)

    def places(self, shard: int, split: Split) -> Int64[np.ndarray, "kept"]:
        """Return the row numbers, in a shard's `images`, of the kept pictures of a split."""
        images, selection = self._shards[shard]
        stored = self.store.read(images, "images", ["uid", "split"])
        chosen = pc.and_(_is_kept(self.store, stored, selection), pc.equal(stored["split"], split.value))
        return np.flatnonzero(chosen.to_numpy())

    def encoded(self, shard: int, places: Int64[np.ndarray, "n"]) -> pa.ChunkedArray:
        """Return the encoded pictures of these rows of a shard; row groups without any of them are not read."""
        return self.store.read_rows(self._shards[shard][0], "images", places.tolist(), ["image"])["image"]


class PictureRows:
    """Kept pictures of a split, in the order of their tables."""

    def __init__(self, pictures: PictureSet, split: Split, side: int) -> None:
        """Divide each shard's pictures into units; they are read and decoded when a unit is loaded."""
        self._pictures, self._split, self._side = pictures, split, side
        self._units: list[tuple[int, int]] = []
        self.counts: list[int] = []
        for shard, num_rows in enumerate(pictures.num_kept(split)):
            for first in range(0, num_rows, UNIT_PICTURES):
                self._units.append((shard, first))
                self.counts.append(min(UNIT_PICTURES, num_rows - first))

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `picture` [n, 3, side, side], uint8."""
        shard, first = self._units[unit]
        places = self._pictures.places(shard, self._split)[first : first + UNIT_PICTURES]
        encoded = self._pictures.encoded(shard, places)
        return {"picture": (square_pictures(encoded, self._side) * 255).round().to(torch.uint8).numpy()}


def kept_pictures(store: Store, images: Listing, selection: Listing, columns: Sequence[str]) -> pa.Table:
    """Return uid, split and further columns of the pictures of a shard that the selection keeps."""
    table = store.read(images, "images", ["uid", "split", *columns])
    return table.filter(_is_kept(store, table, selection))


def _is_kept(store: Store, images: pa.Table, selection: Listing) -> pa.ChunkedArray:
    chosen = store.read(selection, "selection", ["uid", "keep"])
    return pc.is_in(images["uid"], value_set=chosen.filter(chosen["keep"])["uid"].combine_chunks())


def square_pictures(encoded: pa.ChunkedArray, side: int) -> Float[Tensor, "batch 3 side side"]:
    """Decode stored pictures to 0..1: shorter side resized to `side`, centre crop, bicubic with antialiasing, as in CLIP."""
    return torch.stack([square(decode_stored(data), side) for data in encoded.to_pylist()])


def square(picture: Image.Image, side: int) -> Float[Tensor, "3 side side"]:
    """Return a picture as decoders are trained on it, in 0..1."""
    return torch.from_numpy(np.asarray(at_side(picture, side), dtype=np.float32) / 255).permute(2, 0, 1)


def at_side(picture: Image.Image, side: int) -> Image.Image:
    """Resize a picture's shorter side to `side` and crop its centre."""
    ratio = side / min(picture.size)
    width, height = (max(side, round(length * ratio)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))
