"""Training rows of large pictures: image vector and the stored encoding, which is decoded when a batch is made."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import UInt8

from corgi.feeding.packed_rows import half_matrix
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.pictures import square
from corgi.imaging.decode import decode_stored
from corgi.settings.errors import StorageError
from corgi.tables.arrow import pc
from corgi.tables.embedded import rows_of
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard

IMAGES_TABLE = "images"
_DECODERS = 8
"""Number of threads that decode the pictures of a batch."""


class EncodedPictureRows:
    """Kept pictures of a split, in the order of the training table.

    A unit in memory takes only the bytes of its encoded pictures: decoded, 1,000 pictures of 1024 px would take 3 GB.
    """

    def __init__(self, packed: PackedSet, images: Iterable[ListedShard], split: Split, side: int) -> None:
        """Take the row groups of a split and the shards of `download`, matched by name; pictures are decoded to squares of `side` px."""
        by_name = {shard.shard: shard for shard in images}
        self._images = [by_name[name] for name in packed.names]
        self._packed, self._units, self._side = packed, packed.units(split), side
        self.counts: Sequence[int] = self._units.rows.tolist()
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="picture-decoder")

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d], half floats, and `picture` [n], the encoded bytes as stored.

        Raises:
            StorageError: a kept picture is not stored.

        """
        rows = self._packed.read(self._units.at(unit), ["uid", "image"])
        encoded = np.empty(rows.num_rows, dtype=object)
        encoded[:] = self._stored(unit, rows["uid"].to_pylist(), ["image"])["image"].to_pylist()
        return {"image": half_matrix(rows["image"]), "picture": encoded}

    def decoded(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the columns with `picture` decoded to [n, 3, side, side], uint8."""
        squares = list(self._decoders.map(self._square, columns["picture"]))
        return {**columns, "picture": np.stack(squares)}

    def num_smaller(self) -> int:
        """Return how many of the pictures are stored with a shorter side below the squares' side; reads every unit."""
        smaller = 0
        for unit in range(len(self.counts)):
            uids = self._packed.read(self._units.at(unit), ["uid"])["uid"].to_pylist()
            sizes = self._stored(unit, uids, ["width", "height"])
            is_smaller = pc.less(pc.min_element_wise(sizes["width"], sizes["height"]), self._side)
            smaller += pc.sum(is_smaller).as_py() or 0
        return smaller

    def _stored(self, unit: int, uids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Return columns of the stored pictures of these uids, in their order."""
        shard = self._images[self._units.at(unit).shard]
        store = self._packed.store
        stored = store.read(shard, IMAGES_TABLE, ["uid"])
        row_numbers = rows_of(uids, stored["uid"].to_pylist())
        if (row_numbers < 0).any():
            raise StorageError(
                f"{shard.path}: a picture of the training table is not stored here; both are safe; rerun with --only pack --force"
            )
        return store.read_rows(shard, IMAGES_TABLE, row_numbers.tolist(), columns)

    def _square(self, encoded: bytes) -> UInt8[np.ndarray, "3 side side"]:
        return (square(decode_stored(encoded), self._side) * 255).round().to(torch.uint8).numpy()
