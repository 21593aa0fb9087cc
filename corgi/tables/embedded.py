"""The embedded set, shard by shard: which pictures are kept, and which captions may be used for training."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from corgi.tables.arrow import is_in, pc
from corgi.tables.manifest import ShardManifest
from corgi.tables.schema import Split
from corgi.tables.split_counts import SplitCount, learnable, of_facts, split_counts
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store
from corgi.tables.vectors import concatenated, tower_names

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class EmbeddedShard:
    """One shard: its root, its name, and the paths of its manifests; `download` is empty for readers that only need vectors."""

    root: str
    name: str
    embed: str
    curate: str
    download: str = ""
    counted: dict[str, SplitCount] | None = None
    """The counts of each split from the selection's facts, if they were read from its stage's index."""

    def images(self, split: Split | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the image embeddings of the kept pictures of a split (None: of all splits), in the table's order.

        Raises:
            AssertionError: embeddings and selection do not have the same rows.

        """
        wanted = None if columns is None else list({"uid", "split", *columns})
        images = self._read(self.embed, "image_embeddings", wanted)
        keep = self._selection_of(images["uid"])["keep"]
        return images.filter(keep if split is None else pc.and_(keep, pc.equal(images["split"], split.value)))

    def captioned_images(self, split: Split | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return those of `images` that have a full caption which may be used for training."""
        images = self.images(split, columns)
        learned = self.learned(self.captions(["uid", "kind"]))
        return images.filter(pc.is_in(images["uid"], value_set=learned))

    def learned(self, captions: pa.Table) -> pa.Array:
        """Return the uids of the kept pictures with a full caption in `captions` that may be used for training."""
        selection = self._read(self.curate, "selection", None)
        return selection.filter(learnable(selection, captions))["uid"].combine_chunks()

    def counts(self) -> dict[str, SplitCount]:
        """Return the counts of each split from the selection's facts; a selection of version 0.1 has none, and the tables are counted."""
        told = self.counted or of_facts(Store(self.root).read_shard(self.curate).facts)
        if told is not None:
            return told
        images = self._read(self.embed, "image_embeddings", ["uid", "split"])
        selection = self._selection_of(images["uid"])
        return split_counts(images["split"], selection, self.captions(["uid", "kind"]))

    def withheld(self) -> frozenset[str]:
        """Return the uids of the pictures whose captions may not be used for training; all are in the train split."""
        selection = self._read(self.curate, "selection", ["uid", "captioned"])
        return frozenset(selection.filter(pc.equal(selection["captioned"], False))["uid"].to_pylist())

    def captions(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the embeddings of all captions, by (uid, ordinal)."""
        return self._read(self.embed, "caption_embeddings", columns)

    def caption_texts(self) -> dict[tuple[str, int], str]:
        """Return every caption by (uid, ordinal)."""
        table = self._read(self.download, "captions", ["uid", "ordinal", "caption"])
        keys = zip(table["uid"].to_pylist(), table["ordinal"].to_pylist(), strict=True)
        return dict(zip(keys, table["caption"].to_pylist(), strict=True))

    def facts(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the download's pictures."""
        return self._read(self.download, "images", columns)

    def encodings(self, uids: Collection[str]) -> dict[str, bytes]:
        """Return the stored encodings of some pictures; with precomputed vectors there are none."""
        store = Store(self.root)
        download = store.read_shard(self.download)
        stored = store.read(download, "images", ["uid"])
        places = np.flatnonzero(is_in(stored["uid"], frozenset(uids)))
        table = store.read_rows(download, "images", places.tolist(), ["uid", "image"])
        chosen = table.filter(pc.is_valid(table["image"]))
        return dict(zip(chosen["uid"].to_pylist(), chosen["image"].to_pylist(), strict=True))

    def _selection_of(self, uids: pa.ChunkedArray) -> pa.Table:
        selection = self._read(self.curate, "selection", None)
        if not uids.equals(selection["uid"]):
            raise AssertionError(f"shard {self.name}: embeddings and selection do not have the same rows")
        return selection

    def _read(self, path: str, table: str, columns: Sequence[str] | None) -> pa.Table:
        store = Store(self.root)
        return store.read(store.read_shard(path), table, None if columns is None else list(columns))


ListedSet = Mapping[str, Sequence[ListedShard]] | Mapping[str, Sequence[ShardManifest]]
"""The shards of download, embed and curate, by stage and in the same order, from the stages' indexes or as manifests."""


def embedded_set(store: Store, shards: ListedSet) -> list[EmbeddedShard]:
    """Return the shards that the stages download, embed and curate committed."""
    stages = (shards["embed"], shards["curate"], shards["download"])
    return [
        EmbeddedShard(store.location, embed.shard, embed.path, curate.path, download.path)
        for embed, curate, download in zip(*stages, strict=True)
    ]


def stored_pictures(shards: Iterable[EmbeddedShard], uids: Collection[str]) -> dict[str, bytes]:
    """Return the stored encodings of some pictures by uid; reading stops when all are found."""
    wanted, found = set(uids), dict[str, bytes]()
    for shard in shards:
        if wanted <= found.keys():
            break
        found |= shard.encodings(wanted)
    return found


def vectors_of(table: pa.Table, kind: str) -> Float[np.ndarray, "rows dim"]:
    """Return an embeddings table as unit vectors over all its towers; `kind` is image or text."""
    return concatenated(table, kind, tower_names(table.schema))


def rows_of(names: Sequence[str], uids: Iterable[str | None]) -> Int[np.ndarray, "n"]:
    """Return the row of each name among the uids, or -1 if it is missing."""
    row_of = {uid: row for row, uid in enumerate(uids)}
    return np.array([row_of.get(name, -1) for name in names], np.int64)


def first_rows(keys: Iterable[_Key]) -> dict[_Key, int]:
    """Return the first row of each key, in the order of the rows."""
    first: dict[_Key, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    return first
