"""A run's image vectors in memory: the pictures nearest to a vector, among those of a split, domain, reason, kept or dropped."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import faiss
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Shaped

from corgi.curation.domains import registered_domains
from corgi.tables.arrow import pc
from corgi.tables.embedded import EmbeddedShard, vectors_of
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.tables.store import Store

FLAT_ROWS = 200_000
"""Rows up to which every vector is compared; beyond, vectors are kept as bytes in lists around centres (IVF)."""
PROBED_LISTS = 64
TRAINED_ON = 50
"""Vectors per list that the centres are fitted on."""
_ENCODINGS_KEPT = 256


@dataclass(frozen=True)
class Where:
    """Which rows a search is among; None: any."""

    split: str | None = None
    keep: bool | None = None
    """Whether curate kept the picture."""
    reason: str | None = None
    """Why curate dropped it."""
    domain: str | None = None
    """Registered domain of its URL."""


TRAINED = Where(split=Split.TRAIN.value, keep=True)
"""What models learned from."""


@dataclass(frozen=True)
class Found:
    """A row and the cosine of its vector to the one searched for."""

    row: int
    uid: str
    similarity: float
    split: str
    keep: bool
    reason: str | None
    domain: str | None


@dataclass(frozen=True, eq=False)
class PictureIndex:
    """Every embedded picture of a run: 2 bytes per number of a vector, 1 beyond FLAT_ROWS."""

    shards: tuple[EmbeddedShard, ...]
    rows: pa.Table
    """split, keep, reason and domain of each row."""
    uid: Shaped[np.ndarray, "rows"]
    shard_of: Int[np.ndarray, "rows"]
    order: Int[np.ndarray, "rows"]
    """Rows by uid."""
    index: faiss.Index

    @classmethod
    def load(cls, run: Run) -> Self | None:
        """Index a run's pictures; None if it has none.

        Raises:
            InputError: the run has not completed download, embed and curate.

        """
        shards = tuple(run.embedded())
        parts = list(_read(shards))
        if not sum(len(vectors) for _, vectors in parts):
            return None
        rows = pa.concat_tables([table for table, _ in parts]).unify_dictionaries()
        uid = np.array(rows["uid"].to_pylist(), dtype="S32")
        numbers = np.repeat(np.arange(len(parts)), [len(vectors) for _, vectors in parts])
        index = indexed([vectors for _, vectors in parts])
        return cls(shards, rows.drop_columns(["uid"]), uid, numbers, np.argsort(uid), index)

    def search(self, vector: Float[np.ndarray, "dim"], number: int, where: Where = Where()) -> list[Found]:
        """Return the rows of largest cosine to a unit vector, largest first."""
        mask = self._mask(where)
        number = min(number, int(mask.sum()))
        if number == 0:
            return []
        chosen = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # pyright: ignore[reportCallIssue]
        if isinstance(self.index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(sel=chosen, nprobe=PROBED_LISTS)  # pyright: ignore[reportCallIssue]
        else:
            parameters = faiss.SearchParameters(sel=chosen)  # pyright: ignore[reportCallIssue]
        query = np.ascontiguousarray(vector[None], np.float32)
        cosines, rows = self.index.search(query, number, params=parameters)  # pyright: ignore[reportCallIssue]
        pairs = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        return [self.found(row, cosine) for row, cosine in pairs if row >= 0]

    def found(self, row: int, similarity: float) -> Found:
        """Return what is known of a row."""
        told = {name: self.rows[name][row].as_py() for name in self.rows.column_names}
        return Found(row, self.uid[row].decode(), similarity, **told)

    def row_of(self, uid: str) -> int | None:
        """Return the row of a uid; None if it is not here."""
        wanted = np.bytes_(uid.encode("ascii", "replace"))
        place = int(np.searchsorted(self.uid, wanted, sorter=self.order))
        if place == len(self.uid) or self.uid[self.order[place]] != wanted:
            return None
        return int(self.order[place])

    def vector(self, row: int) -> Float[np.ndarray, "dim"]:
        """Return the unit vector of a row, as it is stored in its table."""
        shard = self.shards[int(self.shard_of[row])]
        first = int(np.searchsorted(self.shard_of, self.shard_of[row]))
        return vectors_of(_table(shard, "embed", "image_embeddings"), "image")[row - first]

    def encoding(self, uid: str) -> bytes | None:
        """Return the stored encoding of an indexed picture; None for any other name."""
        row = self.row_of(uid)
        return None if row is None else _encoding(self.shards[int(self.shard_of[row])], uid)

    def _mask(self, where: Where) -> Bool[np.ndarray, "rows"]:
        mask = np.ones(len(self.uid), bool)
        for name in ("split", "keep", "reason", "domain"):
            wanted = getattr(where, name)
            if wanted is not None:
                equal = pc.fill_null(pc.equal(self.rows[name], wanted), False)
                mask &= np.asarray(equal)
        return mask


def _read(shards: Sequence[EmbeddedShard]) -> Iterator[tuple[pa.Table, Float[np.ndarray, "rows dim"]]]:
    """Yield what is known of each shard's pictures, and their vectors as half floats."""
    for shard in shards:
        images = _table(shard, "embed", "image_embeddings")
        selection = _table(shard, "curate", "selection")
        facts = _table(shard, "download", "images", ("uid", "url"))
        if not images["uid"].equals(selection["uid"]) or not images["uid"].equals(facts["uid"]):
            raise AssertionError(f"shard {shard.name}: tables do not hold the same rows")
        domains = pa.array(registered_domains(facts["url"].to_pylist()), pa.string())
        table = pa.table(
            {
                "uid": images["uid"],
                "split": images["split"].combine_chunks().dictionary_encode(),
                "keep": selection["keep"],
                "reason": selection["reason"].combine_chunks().dictionary_encode(),
                "domain": domains.dictionary_encode(),
            }
        )
        yield table, vectors_of(images, "image").astype(np.float16)


def indexed(parts: Sequence[Float[np.ndarray, "rows dim"]]) -> faiss.Index:
    """Return an index of unit vectors by inner product."""
    total, dim = sum(map(len, parts)), parts[0].shape[1]
    if total <= FLAT_ROWS:
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    else:
        lists = 4 * math.isqrt(total)
        index = faiss.index_factory(dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        step = max(1, total // (TRAINED_ON * lists))
        index.train(np.concatenate([part[::step] for part in parts]).astype(np.float32))  # pyright: ignore[reportCallIssue]
    for part in parts:
        index.add(part.astype(np.float32))  # pyright: ignore[reportCallIssue]
    return index


def _table(shard: EmbeddedShard, stage: str, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table of one of the shard's stages."""
    store = Store(shard.root)
    manifest = store.read_shard(getattr(shard, stage))
    return store.read(manifest, name, None if columns is None else list(columns))


@lru_cache(_ENCODINGS_KEPT)
def _encoding(shard: EmbeddedShard, uid: str) -> bytes | None:
    return shard.encodings([uid]).get(uid)
