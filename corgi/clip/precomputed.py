"""The embed stage over precomputed vectors: each planned row's vectors are found by the row's index in its list."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corgi.clip.embedding_tables import embedded_tables, scored
from corgi.clip.references import absolute, given_files
from corgi.clip.scores import checked_heads
from corgi.clip.vector_inputs import check_vectors
from corgi.clip.vectors import Vectors, is_good
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_shards
from corgi.settings.clip import EmbedSettings
from corgi.settings.errors import InputError
from corgi.sources.embeddings import VectorFile, opened_arrays, unit_vectors
from corgi.storage.paths import sha256_of
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Reason
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store


class VectorsToldAt(TypedDict):
    """A `VectorFile` as plain data."""

    metadata: str
    arrays: dict[str, tuple[str, str | None]]


VectorsByList = dict[str, VectorsToldAt]
"""The vectors that belong to a list, by the sha256 that identifies the list in the plan."""


def run(context: Context) -> list[ShardTask]:
    """Commit `image_embeddings` and `caption_embeddings` of every planned shard.

    Raises:
        InputError: a file cannot be read, or its vectors are not those of the recipe's towers, or differ in width.

    """
    tasks = context.partitioned()
    pending = context.pending(tasks)
    if not pending:
        return tasks
    settings: EmbedSettings = context.recipe.embed
    dims, files = check_vectors(settings), given_files(settings)
    by_list = {sha256_of(str(file.metadata)): _told(file) for file in files}
    check_lists(context.listed("plan"), by_list)
    connect(context.recipe)
    arguments = {
        "vectors": by_list,
        "dims": dims,
        "caption_col": context.recipe.plan.caption_col,
        "settings": absolute(settings).model_dump(mode="json"),
    }
    pool = Pool(settings.num_actors, settings.cpus_per_actor)
    make_shards(GivenShards, arguments, pending, pool, "embed")
    return tasks


def check_lists(plan: Sequence[ListedShard], by_list: Mapping[str, object]) -> None:
    """Compare the lists that were planned with those that have vectors.

    Raises:
        InputError: a list changed since it was planned.

    """
    planned = {source["sha256"]: source["path"] for shard in plan[:1] for source in shard.facts["sources"]}
    for sha256, path in planned.items():
        if sha256 not in by_list:
            raise InputError(
                f"{path} changed since it was planned; committed work is safe; run the same command again"
            )


class GivenShards:
    """Make shards of the embeddings tables from arrays on disk; run by several Ray Data actors at once."""

    def __init__(
        self,
        vectors: VectorsByList,
        dims: dict[str, int],
        caption_col: str | None,
        settings: Mapping[str, object],
    ) -> None:
        """Load the heads; arrays are opened when they are first needed."""
        self._files = {sha256: _file(told) for sha256, told in vectors.items()}
        self._dims, self._caption_col = dims, caption_col
        chosen = EmbedSettings.model_validate(settings)
        self._heads = checked_heads(chosen.heads, dims)
        self._models = {ref.name: ref.model for ref in chosen.towers}

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit one shard; a picture or caption is dropped and counted if each of its rows has a NaN, infinite or zero vector."""
        store = Store(task.root)
        download, planned = (store.read_shard(task.inputs[name][0]) for name in ("download", "plan"))
        images = store.read(download, "images", ["uid", "split"])
        captions = store.read(download, "captions", ["uid", "ordinal", "caption", "kind"])
        rows = _rows_of(store.read(planned, "plan", ["uid", "sources", "rows"]), images["uid"].to_pylist())
        pictures, texts = self._vectors(rows, captions)
        tables = embedded_tables(images, captions, pictures, texts)
        tables["image_embeddings"] = scored(tables["image_embeddings"], self._heads)
        kept, captions_kept = tables["image_embeddings"].num_rows, tables["caption_embeddings"].num_rows
        facts = {
            "towers": {
                name: {"model": self._models.get(name), "dim": dim} for name, dim in self._dims.items()
            },
            "captions": captions_kept,
            "captions_dropped": captions.num_rows - captions_kept,
        }
        rejected = {Reason.BAD_VECTOR: images.num_rows - kept} if kept < images.num_rows else {}
        with store.attempt(task) as attempt:
            for name, table in tables.items():
                attempt.write_table(name, table)
            return attempt.commit(RowCounts(rows_in=images.num_rows, kept=kept, rejected=rejected), facts)

    def _vectors(self, rows: "_Rows", captions: pa.Table) -> tuple[Vectors, Vectors]:
        """Return each picture's and each caption's vectors: those of its first row whose vectors are all good."""
        towers = list(self._dims)
        pictures = {name: self._taken(rows, f"{name}/image") for name in towers}
        texts = {name: self._taken(rows, f"{name}/text") for name in towers}
        caption_of = self._captions(rows)
        chosen: dict[Any, int] = {}
        for at in np.flatnonzero(_all_good(pictures)).tolist():
            chosen.setdefault(rows.uid[at], at)
        spoken: dict[Any, int] = {}
        for at in np.flatnonzero(_all_good(texts)).tolist():
            spoken.setdefault((rows.uid[at], caption_of[at]), at)
        keys = zip(captions["uid"].to_pylist(), captions["caption"].to_pylist(), strict=True)
        return (
            _picked(pictures, [chosen.get(uid, -1) for uid in rows.wanted]),
            _picked(texts, [spoken.get(key, -1) for key in keys]),
        )

    def _taken(self, rows: "_Rows", column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return unit vectors and norms of the rows; both are zero where a file has no such column."""
        found = np.zeros((len(rows.uid), self._dims[column.rpartition("/")[0]]), np.float32)
        for source, at in rows.by_source.items():
            array = _arrays(self._files[source]).get(column)
            if array is not None:
                found[at] = array[rows.row[at]]
        return unit_vectors(found)

    def _captions(self, rows: "_Rows") -> list[str | None]:
        captions: list[str | None] = [None] * len(rows.uid)
        for source, at in rows.by_source.items() if self._caption_col else ():
            held = _captions(self._files[source].metadata, str(self._caption_col))
            for row, text in zip(at.tolist(), held.take(pa.array(rows.row[at])).to_pylist(), strict=True):
                captions[row] = text
        return captions


class _Rows:
    """The rows that the lists have for some pictures: one entry per row of a list, in the plan's order."""

    def __init__(self, wanted: list[str], uid: list[str], source: list[str], row: list[int]) -> None:
        self.wanted, self.uid, self.row = wanted, uid, np.array(row, np.int64)
        rows_in: dict[str, list[int]] = {}
        for at, name in enumerate(source):
            rows_in.setdefault(name, []).append(at)
        self.by_source = {name: np.array(at, np.int64) for name, at in rows_in.items()}


def _rows_of(plan: pa.Table, wanted: list[str]) -> _Rows:
    known = set(wanted)
    entries = [
        (planned["uid"], source, row)
        for planned in plan.to_pylist()
        if planned["uid"] in known
        for source, row in zip(planned["sources"], planned["rows"], strict=True)
    ]
    return _Rows(wanted, [e[0] for e in entries], [e[1] for e in entries], [e[2] for e in entries])


def _all_good(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.logical_and.reduce([is_good(unit, norm) for unit, norm in found.values()])


def _picked(found: Mapping[str, tuple[np.ndarray, np.ndarray]], at: list[int]) -> Vectors:
    """Return the vectors at some rows; at -1, a vector of norm zero, which is not stored in any table."""
    rows = np.array(at, np.int64)
    is_there = (rows >= 0).astype(np.float32)
    unit, norm = {}, {}
    for name, (vectors, norms) in found.items():
        padded = np.concatenate([vectors, np.zeros((1, vectors.shape[1]), np.float32)])
        unit[name] = padded[rows]
        norm[name] = np.append(norms, np.float32(0))[rows] * is_there
    return Vectors(unit, norm)


@lru_cache(maxsize=8)
def _opened(metadata: str, arrays: tuple[tuple[str, str, str | None], ...]) -> dict[str, np.ndarray]:
    return opened_arrays(VectorFile(Path(metadata), {name: (Path(path), key) for name, path, key in arrays}))


def _arrays(file: VectorFile) -> dict[str, np.ndarray]:
    arrays = tuple((name, str(path), key) for name, (path, key) in file.arrays.items())
    return _opened(str(file.metadata), arrays)


@lru_cache(maxsize=8)
def _captions(metadata: Path, column: str) -> pa.ChunkedArray:
    return pq.read_table(metadata, columns=[column], partitioning=None)[column].cast(pa.string())  # pyright: ignore[reportArgumentType]


def _told(file: VectorFile) -> VectorsToldAt:
    arrays = {name: (str(path), key) for name, (path, key) in file.arrays.items()}
    return {"metadata": str(file.metadata), "arrays": arrays}


def _file(told: VectorsToldAt) -> VectorFile:
    arrays = {name: (Path(path), key) for name, (path, key) in told["arrays"].items()}
    return VectorFile(Path(told["metadata"]), arrays)
