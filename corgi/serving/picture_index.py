"""A run's image vectors in memory: search for the pictures nearest to a vector, optionally by split, domain, reason, or kept and dropped.

Codes are stored once, in faiss's own memory, into which they are read part by part.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Self

import faiss
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Shaped

from corgi.serving.codes import PROBED_LISTS, Codec
from corgi.serving.index_stage import ROWS, codes_of, fitted, read_codec, rows_of_shard
from corgi.serving.stages import Index
from corgi.settings.errors import InputError
from corgi.tables.arrow import pc
from corgi.tables.embedded import EmbeddedShard, vectors_of
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.tables.store import Store

UNSTORED_ROWS = 200_000
"""Number of rows up to which a server builds the index itself when it starts; with more rows `corgi index` must build it."""
FILTERS = ("split", "keep", "reason", "domain")
"""Columns by which rows are filtered."""
MOST_ROWS = 0.3
"""If a filter keeps a larger share of the rows than this, it is applied after the search."""
_ENCODINGS_KEPT = 256


@dataclass(frozen=True)
class Where:
    """The filter of a search; None: any value."""

    split: str | None = None
    keep: bool | None = None
    """Whether the curate stage kept the picture."""
    reason: str | None = None
    """Why the curate stage dropped it."""
    domain: str | None = None
    """Registered domain of its URL."""


ANY = Where()
TRAINED = Where(split=Split.TRAIN.value, keep=True)
"""The pictures on which models were trained."""


@dataclass(frozen=True)
class Found:
    """A row and the cosine between its vector and the query."""

    row: int
    uid: str
    similarity: float
    split: str
    keep: bool
    reason: str | None
    domain: str | None


@dataclass(frozen=True, eq=False)
class PictureIndex:
    """Every embedded picture of a run."""

    shards: tuple[EmbeddedShard, ...]
    rows: pa.Table
    """Columns split, keep, reason and domain, in row order."""
    uid: Shaped[np.ndarray, "rows"]
    shard_of: Int[np.ndarray, "rows"]
    order: Int[np.ndarray, "rows"]
    """Indices of the rows, sorted by uid."""
    index: faiss.Index

    @classmethod
    def load(cls, run: Run) -> Self | None:
        """Return the index of a run's pictures, as `corgi index` committed it or built now; None if the run has no pictures.

        Raises:
            InputError: the run has not completed download, embed and curate, or has too many pictures to build the index now.

        """
        shards = tuple(run.embedded())
        parts = stored_parts(run, shards) or _made_parts(run, shards)
        if parts is None:
            return None
        tables = parts.facts()
        numbers = np.repeat(np.arange(len(tables), dtype=np.int32), [table.num_rows for table in tables])
        index = parts.index([np.asarray(table["list"], np.int32) for table in tables])
        rows = pa.concat_tables(tables).unify_dictionaries()
        uid = np.array(rows["uid"].to_pylist(), dtype="S32")
        order = np.argsort(uid, kind="stable").astype(np.int32)
        return cls(shards, rows.select(FILTERS), uid, numbers, order, index)

    def search(self, vector: Float[np.ndarray, "dim"], number: int, where: Where = ANY) -> list[Found]:
        """Return the rows with the largest cosine to a unit vector, largest first."""
        mask = None if where == ANY else self._mask(where)
        number = min(number, len(self.uid) if mask is None else int(mask.sum()))
        if number == 0:
            return []
        return [self.found(row, cosine) for row, cosine in self._nearest(vector, number, mask)]

    def _nearest(
        self, vector: Float[np.ndarray, "dim"], number: int, mask: Bool[np.ndarray, "rows"] | None
    ) -> list[tuple[int, float]]:
        """Return rows and cosines, largest first, among the rows of a mask.

        If the mask keeps many rows, more rows than needed are searched without it and filtered afterwards: faiss checks a selector row by row.
        """
        if mask is None:
            return self._compared(vector, number, None)
        share = float(mask.mean())
        if share > MOST_ROWS:
            more = min(len(mask), 2 * math.ceil(number / share) + 16)
            among = [pair for pair in self._compared(vector, more, None) if mask[pair[0]]]
            if len(among) >= number:
                return among[:number]
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # pyright: ignore[reportCallIssue]
        return self._compared(vector, number, selector)

    def _compared(
        self, vector: Float[np.ndarray, "dim"], number: int, selector: faiss.IDSelector | None
    ) -> list[tuple[int, float]]:
        if isinstance(self.index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=PROBED_LISTS)  # pyright: ignore[reportCallIssue]
        else:
            parameters = faiss.SearchParameters(sel=selector)  # pyright: ignore[reportCallIssue]
        query = np.ascontiguousarray(vector[None], np.float32)
        cosines, rows = self.index.search(query, number, params=parameters)  # pyright: ignore[reportCallIssue]
        pairs = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        return [pair for pair in pairs if pair[0] >= 0]

    def found(self, row: int, similarity: float) -> Found:
        """Return a row with its columns and a given similarity."""
        values = {name: self.rows[name][row].as_py() for name in self.rows.column_names}
        return Found(row, self.uid[row].decode(), similarity, **values)

    def row_of(self, uid: str) -> int | None:
        """Return the row of a uid; None if the index does not have it."""
        key = np.bytes_(uid.encode("ascii", "replace"))
        index = int(np.searchsorted(self.uid, key, sorter=self.order))
        if index == len(self.uid) or self.uid[self.order[index]] != key:
            return None
        return int(self.order[index])

    def vector(self, row: int) -> Float[np.ndarray, "dim"]:
        """Return the unit vector of a row from its embeddings table."""
        shard = self.shards[int(self.shard_of[row])]
        first = int(np.searchsorted(self.shard_of, self.shard_of[row]))
        return vectors_of(_table(shard, "embed", "image_embeddings"), "image")[row - first]

    def encoding(self, uid: str) -> bytes | None:
        """Return the stored encoding of an indexed picture; None for any other uid."""
        row = self.row_of(uid)
        return None if row is None else _encoding(self.shards[int(self.shard_of[row])], uid)

    def _mask(self, where: Where) -> Bool[np.ndarray, "rows"]:
        mask = np.ones(len(self.uid), bool)
        for name in FILTERS:
            value = getattr(where, name)
            if value is not None:
                equal = pc.fill_null(pc.equal(self.rows[name], value), False)
                mask &= np.asarray(equal)
        return mask


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of an index part by part, so that only one part at a time is in memory in addition to the index."""

    codec: Codec
    read: Sequence[Callable[[list[str] | None], pa.Table]]
    """For each part a function that reads columns of its `rows` table."""

    def facts(self) -> list[pa.Table]:
        """Return uid, list and the filter columns of each part; columns of repeated texts are dictionary-encoded."""
        return [_as_dictionaries(read(["uid", *FILTERS, "list"])) for read in self.read]

    def index(self, lists: Sequence[Int[np.ndarray, "rows"]]) -> faiss.Index:
        """Return the index of all codes; `lists` has the list number of each row, by part."""
        if len(self.codec.centres):
            sizes = sum(np.bincount(part, minlength=len(self.codec.centres)) for part in lists)
        else:
            sizes = np.array([len(part) for part in lists])
        codes = (codes_of(read(["code"])["code"]) for read in self.read)
        return self.codec.index(np.asarray(sizes), zip(codes, lists, strict=True))


def stored_parts(run: Run, shards: Sequence[EmbeddedShard]) -> Parts | None:
    """Return the parts that `corgi index` committed for exactly these tables; None if there is no such index."""
    stages = run.stages()
    closed = stages.get(Index.name)
    if closed is None or any(closed.inputs[name] != stages[name].path for name in Index.inputs):
        return None
    codec, *parts = run.store.each_listed(closed)
    if [part.shard for part in parts] != [shard.name for shard in shards]:
        return None
    return Parts(read_codec(run.store, codec), [partial(run.store.read, part, ROWS) for part in parts])


def _made_parts(run: Run, shards: Sequence[EmbeddedShard]) -> Parts | None:
    """Return the parts of a run without a committed index, computed when they are read; None if it has no image.

    Raises:
        InputError: there are too many images to compute them now.

    """
    total = run.stages()["embed"].rows.kept
    if total > UNSTORED_ROWS:
        raise InputError(
            f"{run.name} has {total:,} embedded images but no search index; nothing was changed; build it with: corgi index {run.folder}"
        )
    if not total:
        return None
    codec = fitted(run.store, run.listed("embed"))
    return Parts(codec, [partial(_made_part, shard, codec) for shard in shards])


def _made_part(shard: EmbeddedShard, codec: Codec, columns: list[str] | None) -> pa.Table:
    table = rows_of_shard(shard, codec)
    return table if columns is None else table.select(columns)


def _as_dictionaries(table: pa.Table) -> pa.Table:
    """Return the table with its columns of repeated texts dictionary-encoded."""
    for name in ("split", "reason", "domain"):
        column = table[name].combine_chunks().dictionary_encode()
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _table(shard: EmbeddedShard, stage: str, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table of one of the shard's stages."""
    store = Store(shard.root)
    manifest = store.read_shard(getattr(shard, stage))
    return store.read(manifest, name, None if columns is None else list(columns))


@lru_cache(_ENCODINGS_KEPT)
def _encoding(shard: EmbeddedShard, uid: str) -> bytes | None:
    return shard.encodings([uid]).get(uid)
