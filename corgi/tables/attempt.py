"""One attempt to make a shard: first private files, last one manifest."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import hashlib
import io
import json
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer

from corgi.storage.errors import storage_full
from corgi.storage.storage import Storage
from corgi.tables.blocks import BlockHashes
from corgi.tables.generations import generation, publish
from corgi.tables.manifest import FileEntry, RowCounts, ShardManifest, sealed
from corgi.tables.row_groups import ROW_GROUPS_FACT, RowGroupsFact, write_row_groups

VECTOR_ROW_GROUP_ROWS = 10_000
PICTURE_ROW_GROUP_ROWS = 500
"""Small, because some pictures are read without the others of their shard."""


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to make one shard, as plain data.

    `inputs` maps each upstream stage to the paths, relative to the store, of the shard manifests to read. `earlier` has (key, digest)
    of what was committed for this shard under other keys: equal content keeps the earlier name.
    """

    root: str
    stage: str
    shard: str
    key: str
    version: int
    code: str
    settings: dict[str, Any]
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    payload: dict[str, Any] = field(default_factory=dict)
    earlier: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> str:
        """Return the folder of the shard's files and manifests, relative to the store."""
        return f"{self.stage}/{self.key}"


class Attempt:
    """Writes files under its own private names, then publishes the manifest that lists them."""

    def __init__(self, storage: Storage, task: ShardTask) -> None:
        """Prepare the shard's folder; files get this attempt's own prefix."""
        self.storage = storage
        self.task = task
        self.prefix = uuid.uuid4().hex[:12]
        self._files: list[FileEntry] = []
        self._begun: list[str] = []
        self._committed = False
        try:
            storage.make(task.folder)
        except OSError as error:
            storage_full(error, storage.locate(task.folder))

    def write_table(self, table: str, data: pa.Table) -> None:
        """Write one Parquet file with page checksums, with vectors not dictionary-encoded, and without any time in it."""
        plain = [
            f.name
            for f in data.schema
            if not (pa.types.is_fixed_size_list(f.type) or pa.types.is_floating(f.type) or f.name == "image")
        ]
        with self._listed(table, ".parquet", data.num_rows, in_blocks=True) as sink:
            pq.write_table(
                data,
                sink,
                # encoded pictures cannot be compressed further
                compression={f.name: "none" if f.name == "image" else "zstd" for f in data.schema},  # pyright: ignore[reportArgumentType]
                use_dictionary=plain,  # pyright: ignore[reportArgumentType]
                write_page_checksum=True,
                row_group_size=PICTURE_ROW_GROUP_ROWS
                if "image" in data.column_names
                else VECTOR_ROW_GROUP_ROWS,
                store_schema=True,
            )

    def write_row_groups(
        self, table: str, data: pa.Table, sizes: Sequence[int]
    ) -> dict[str, dict[str, RowGroupsFact]]:
        """Write one Parquet file with row groups of these sizes; return the shard's fact that names them."""
        with self._listed(table, ".parquet", data.num_rows) as sink:
            groups = write_row_groups(sink, data, sizes)
        return {ROW_GROUPS_FACT: {table: groups.as_fact()}}

    def write_bytes(self, table: str, suffix: str, data: bytes) -> None:
        """Write one file that is not a table, such as safetensors, JSON or a picture."""
        with self._listed(table, suffix, 0) as sink:
            sink.write(data)

    def commit(
        self,
        rows: RowCounts,
        facts: Mapping[str, object] | None = None,
        timings: Mapping[str, object] | None = None,
    ) -> ShardManifest:
        """Publish the manifest; only from then on the shard exists."""
        task = self.task
        self.storage.sync(task.folder)
        manifest = ShardManifest(
            stage=task.stage,
            shard=task.shard,
            key=task.key,
            version=task.version,
            code=task.code,
            settings=task.settings,
            inputs=task.inputs,
            files=tuple(self._files),
            rows=rows,
            facts=dict(facts or {}),
        ).named_by(task.earlier)
        path = publish(self.storage, task.folder, sealed(manifest))
        self._committed = True
        if timings:
            with self.storage.create(f"{task.folder}/{self.prefix}-stats.json") as sink:
                sink.write(json.dumps(timings).encode())
        return manifest.at(path)

    def discard(self) -> None:
        """Remove this attempt's files unless a manifest lists them.

        If no commit has returned, the folder's manifests are read: an error or a Ctrl-C may have come just after the manifest was published.
        """
        if self._committed or not self._begun:
            return
        folder = self.task.folder
        manifests = [name for name in self.storage.names(folder) if generation(name) is not None]
        if not any(self.prefix.encode() in self.storage.read(f"{folder}/{name}") for name in manifests):
            for name in self._begun:
                self.storage.remove(name)

    @contextmanager
    def _listed(self, table: str, suffix: str, rows: int, in_blocks: bool = False) -> Generator["_Measured"]:
        name = f"{self.prefix}-{table}{suffix}"
        self._begun.append(f"{self.task.folder}/{name}")
        with self.storage.create(self._begun[-1]) as handle:
            sink = _Measured(handle, in_blocks)
            yield sink
        self._files.append(
            FileEntry(
                table=table,
                name=name,
                size=sink.size,
                sha256=sink.sha256.hexdigest(),
                rows=rows,
                blocks=sink.blocks.text(sink.size) if sink.blocks else "",
            )
        )


class _Measured(io.RawIOBase):
    """Passes bytes on to a file, and counts and hashes the bytes before they are written, not as a disk returns them."""

    def __init__(self, sink: BinaryIO, in_blocks: bool) -> None:
        self._sink = sink
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.blocks = BlockHashes() if in_blocks else None

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        self._sink.write(view)
        self.sha256.update(view)
        if self.blocks is not None:
            self.blocks.update(view)
        self.size += view.nbytes
        return view.nbytes
