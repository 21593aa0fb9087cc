"""Training rows of pixels: kept pictures of one split, decoded from the committed `images` to squares."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.imaging.decode import decode_stored
from corgi.tables.schema import Split
from corgi.tables.split_counts import of_facts
from corgi.tables.store import Store

UNIT_PICTURES = 1024
"""Pictures per unit: part of a shard, since a whole one of 10,000 pictures of 256 px would hold 2 GB once decoded."""


class PictureRows:
    """Kept pictures of a split, in the order of their tables."""

    def __init__(
        self,
        root: str,
        images: Sequence[str],
        selections: Sequence[str],
        split: Split,
        side: int,
    ) -> None:
        """Take the manifest paths of `download` and `curate` in one order, and each shard's count."""
        self._store, self._split, self._side = Store(root), split, side
        self._shards = list(zip(images, selections, strict=True))
        self._units: list[tuple[int, int]] = []
        self.counts: list[int] = []
        for shard in range(len(self._shards)):
            num_rows = self._num_kept(shard)
            for first in range(0, num_rows, UNIT_PICTURES):
                self._units.append((shard, first))
                self.counts.append(min(UNIT_PICTURES, num_rows - first))

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `picture` [n, 3, side, side], bytes."""
        shard, first = self._units[unit]
        encoded = self._kept(shard, ["image"])["image"].slice(first, UNIT_PICTURES)
        return {"picture": (square_pictures(encoded, self._side) * 255).round().to(torch.uint8).numpy()}

    def _num_kept(self, shard: int) -> int:
        """Return a shard's rows by the facts of its selection; those of 0.1, which has none, are counted."""
        told = of_facts(self._store.read_shard(self._shards[shard][1]).facts)
        return self._kept(shard, []).num_rows if told is None else told[self._split].images

    def _kept(self, shard: int, columns: list[str]) -> pa.Table:
        images, selection = self._shards[shard]
        kept = kept_pictures(self._store, images, selection, columns)
        return kept.filter(pc.field("split") == self._split.value)


def kept_pictures(store: Store, images: str, selection: str, columns: Sequence[str]) -> pa.Table:
    """Return uid, split and further columns of the pictures of a shard that the selection keeps; both are manifest paths."""
    chosen = store.read(store.read_shard(selection), "selection", ["uid", "keep"])
    table = store.read(store.read_shard(images), "images", ["uid", "split", *columns])
    return table.filter(pc.field("uid").isin(chosen.filter(chosen["keep"])["uid"].combine_chunks()))


def square_pictures(encoded: pa.ChunkedArray, side: int) -> Float[Tensor, "batch 3 side side"]:
    """Decode stored pictures to 0..1: shorter side to `side`, centre crop, bicubic with antialiasing as CLIP does."""
    return torch.stack([square(decode_stored(data), side) for data in encoded.to_pylist()])


def square(picture: Image.Image, side: int) -> Float[Tensor, "3 side side"]:
    """Resize a picture's shorter side to `side` and crop its centre; values 0..1."""
    ratio = side / min(picture.size)
    width, height = (max(side, round(length * ratio)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC).crop(
        (left, top, left + side, top + side)
    )
    return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255).permute(2, 0, 1)
