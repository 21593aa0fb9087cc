"""The shards of a closed stage in one file next to its manifest: a reader opens it instead of one manifest per shard."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import StorageError
from corgi.storage.storage import Storage
from corgi.tables.manifest import FileEntry, RowCounts, ShardManifest, StageManifest
from corgi.tables.row_groups import ROW_GROUPS_FACT, RowGroups
from corgi.tables.schema import Reason

INDEX_TABLE = "index"
_BATCH_SHARDS = 1_000  # number of shards that exist as Python objects at once while an index is read
_FILE = pa.struct(
    [
        ("table", pa.string()),
        ("name", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
    ]
)
INDEX = pa.schema(
    [
        ("shard", pa.string()),
        ("path", pa.string()),
        ("digest", pa.string()),
        ("rows_in", pa.int64()),
        ("kept", pa.int64()),
        ("rejected", pa.string()),
        ("files", pa.list_(_FILE)),
        ("facts", pa.string()),
    ]
)
"""One row per shard in the stage's order; rejected (rows by reason) and facts are JSON."""
_FIELDS = {
    "shard": "shard",
    "path": "path",
    "digest": "digest",
    "rows_in": "rows_in",
    "kept": "kept",
    "rejected": "rejected",
    "files": "entries",
    "facts": "told",
}
"""The field of `ListedShard` for each column."""


@dataclass(frozen=True, slots=True)
class ListedShard:
    """The contents of a shard's manifest: path and digest, rows by reason, files and facts.

    The last three are parsed from the index when they are accessed: a stage may have 40,000 shards, and a reader needs the facts of
    each once and the files of few.
    """

    stage: str
    shard: str
    path: str
    digest: str
    rows_in: int
    kept: int
    rejected: str
    entries: list[dict[str, Any]]
    told: str

    @classmethod
    def of(cls, manifest: ShardManifest) -> Self:
        """Return the contents of a manifest."""
        return cls(
            manifest.stage,
            manifest.shard,
            manifest.path,
            manifest.digest,
            manifest.rows.rows_in,
            manifest.rows.kept,
            _json(manifest.rows.rejected),
            [entry.model_dump(exclude={"blocks"}) for entry in manifest.files],
            _json(manifest.facts),
        )

    @property
    def rows(self) -> RowCounts:
        """Return the rows by reason."""
        return RowCounts(rows_in=self.rows_in, kept=self.kept, rejected=json.loads(self.rejected))

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Return the committed files."""
        return tuple(FileEntry.model_construct(**entry) for entry in self.entries)

    @property
    def facts(self) -> dict[str, Any]:
        """Return the facts."""
        return json.loads(self.told)


def write_index(storage: Storage, manifest: StageManifest, shards: Sequence[ListedShard]) -> StageManifest:
    """Write the index of a stage's shards, durable, and return the stage's manifest with it; nothing is published yet."""
    sink = pa.BufferOutputStream()
    pq.write_table(_table_of(shards), sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    name = f"{uuid.uuid4().hex[:12]}-{INDEX_TABLE}.parquet"
    folder = f"{manifest.stage}/closed/{manifest.key}"
    storage.make(folder)
    with storage.create(f"{folder}/{name}") as handle:
        handle.write(data)
    storage.sync(folder)
    entry = FileEntry(
        table=INDEX_TABLE,
        name=name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=len(shards),
    )
    return manifest.model_copy(update={"index": entry})


def read_index(storage: Storage, manifest: StageManifest) -> Iterator[ListedShard]:
    """Yield the shards in a stage's index, after comparing it with its sha256 and with the shards in the manifest.

    Raises:
        StorageError: the index is missing or is not the one that was written.

    """
    name = index_name(manifest)
    assert name is not None
    assert manifest.index is not None
    try:
        data = storage.read(name)
    except OSError as error:
        raise StorageError(
            f"{storage.locate(name)} cannot be read ({error.strerror or error}); {_advice(storage, manifest)}"
        ) from error
    if hashlib.sha256(data).hexdigest() != manifest.index.sha256:
        raise StorageError(
            f"{storage.locate(name)} does not match its sha256 {manifest.index.sha256}; {_advice(storage, manifest)}"
        )
    table = read_buffer(data)
    listed = [(entry.shard, entry.path, entry.digest) for entry in manifest.shards]
    named = [table[name].to_pylist() for name in ("shard", "path", "digest")]
    if list(zip(*named, strict=True)) != listed:
        raise StorageError(
            f"{storage.locate(name)} lists other shards than its manifest; {_advice(storage, manifest)}"
        )
    for batch in table.to_batches(_BATCH_SHARDS):
        yield from _shards_of(manifest.stage, batch)


def read_buffer(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet table, or some of its columns, from bytes.

    Arrow's own threads are not used: a thread that releases Python bytes while the interpreter ends aborts the process, as
    happened to `corgi status`.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, pre_buffer=False)
    table: pa.Table = file.read(None if columns is None else list(columns), use_threads=False)
    return table if columns is None else table.select(list(columns))


def row_groups(shard: ListedShard | ShardManifest, table: str) -> RowGroups | None:
    """Return the row groups of a shard's table from its facts; None for a table that is read completely."""
    told = shard.facts.get(ROW_GROUPS_FACT, {}).get(table)
    return None if told is None else RowGroups.of_fact(told)


def index_name(manifest: StageManifest) -> str | None:
    """Return the name of a stage's index relative to the store; None for a stage closed by version 0.1."""
    return None if manifest.index is None else f"{manifest.path.rpartition('/')[0]}/{manifest.index.name}"


def _table_of(shards: Sequence[ListedShard]) -> pa.Table:
    columns = {name: [getattr(shard, field) for shard in shards] for name, field in _FIELDS.items()}
    return pa.table(columns, schema=INDEX)


def _shards_of(stage: str, batch: pa.RecordBatch) -> list[ListedShard]:
    columns = [batch[name].to_pylist() for name in _FIELDS]
    return [ListedShard(stage, *row) for row in zip(*columns, strict=True)]


def _json(values: Mapping[str, object] | Mapping[Reason, object]) -> str:
    return json.dumps(values, sort_keys=True)


def _advice(storage: Storage, manifest: StageManifest) -> str:
    return f"its shards are safe; remove {storage.locate(manifest.path)} and run the same command"
