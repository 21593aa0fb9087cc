"""Committed tables: first private files are written, last one manifest; a file that no manifest lists is never read.

A shard's folder contains data files under names private to an attempt, and numbered manifests, each published by
put-if-absent (`link` on a disk, conditional put on an object store). The manifest with the highest number is valid.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import StorageError
from corgi.storage.errors import storage_full
from corgi.storage.files import sha256_of_file, write_file
from corgi.storage.many import each_of
from corgi.storage.retries import patient
from corgi.storage.roots import is_object_store, open_storage
from corgi.storage.storage import Storage
from corgi.tables import blocks
from corgi.tables.attempt import VECTOR_ROW_GROUP_ROWS, Attempt, ShardTask
from corgi.tables.blocks import BlockFile, columns_of, rows_at, schema_of
from corgi.tables.damage import advice, check_hash, check_length, unreadable
from corgi.tables.generations import generation, newest, publish, read_sealed
from corgi.tables.manifest import FileEntry, Listing, ShardEntry, ShardManifest, StageManifest, sealed
from corgi.tables.row_groups import RowGroups
from corgi.tables.stage_index import ListedShard, read_buffer, read_index, write_index

_Read = TypeVar("_Read")
_Item = TypeVar("_Item")

__all__ = ["VECTOR_ROW_GROUP_ROWS", "Attempt", "ShardTask", "Store", "write_file"]


class Store:
    """The committed tables under one root: a folder, or a URL such as s3://bucket/runs."""

    def __init__(self, root: str | Path, cache: Path | None = None, storage: Storage | None = None) -> None:
        """Open the store of a root; nothing is created until something is written.

        `cache` is the folder for copies of an object store's files when a path is needed; by default a folder of this
        machine and user. `storage` is only used by tests.
        """
        self.location = str(root).rstrip("/") if is_object_store(root) else str(Path(root).absolute())
        self.storage = storage or open_storage(f"{self.location}/store", cache)

    @property
    def root(self) -> Path:
        """Return the store's folder on a disk.

        Raises:
            StorageError: the root is an object store, which has no folder.

        """
        if is_object_store(self.location):
            raise StorageError(
                f"{self.location} is not a folder on a disk; committed work is safe; set scratch to such a folder"
            )
        return Path(self.location) / "store"

    def shard_folder(self, stage: str, key: str) -> Path:
        """Return the folder of a shard's files and manifests on a disk."""
        return self.root / stage / key

    def shard(self, stage: str, key: str) -> ShardManifest | None:
        """Return a shard's newest manifest, or None while it is not committed."""
        found = newest(self.storage, f"{stage}/{key}")
        return None if found is None else self.read_shard(found)

    def stage(self, stage: str, key: str) -> StageManifest | None:
        """Return a closed stage's newest manifest, or None while it is not complete."""
        found = newest(self.storage, f"{stage}/closed/{key}")
        return None if found is None else self.read_stage(found)

    def closed_keys(self, stage: str) -> list[str]:
        """Return the keys under which a stage was ever closed, sorted."""
        return sorted(self.storage.folders(f"{stage}/closed"))

    def committed(self, stage: str, keys: list[str]) -> dict[str, str]:
        """Return the path of the newest manifest of each of these shard keys that has one; no manifest is opened."""
        if len(keys) <= 64 or not is_object_store(self.location):
            paths = self.each_of(keys, lambda key: newest(self.storage, f"{stage}/{key}"))
            return {key: path for key, path in zip(keys, paths, strict=True) if path is not None}
        best: dict[str, int] = {}
        wanted = set(keys)
        for name, _ in self.storage.walk(stage):  # one listing, with a thousand names per response
            _, key, *rest = name.split("/")
            number = generation(rest[0]) if len(rest) == 1 else None
            if number is not None and key in wanted:
                best[key] = max(number, best.get(key, 0))
        return {key: f"{stage}/{key}/manifest-{number}.json" for key, number in best.items()}

    def read_shard(self, path: str) -> ShardManifest:
        """Return the shard manifest at a path relative to the store."""
        return read_sealed(self.storage, path, ShardManifest)

    def read_stage(self, path: str) -> StageManifest:
        """Return the stage manifest at a path relative to the store."""
        return read_sealed(self.storage, path, StageManifest)

    def shards(self, manifest: StageManifest) -> list[ShardManifest]:
        """Return the shard manifests that a stage manifest lists, in order, each checked against its digest."""
        return list(self.each_shard(manifest))

    def each_shard(self, manifest: StageManifest) -> Iterator[ShardManifest]:
        """Return an iterator over the shard manifests that a stage manifest lists, each checked against its digest."""
        return self.each_of(manifest.shards, self.listed_shard)

    def each_of(self, items: Iterable[_Item], read: Callable[[_Item], _Read]) -> Iterator[_Read]:
        """Return an iterator over the result of `read` for each item, in order; from an object store, many are read at a time."""
        return each_of(items, read) if is_object_store(self.location) else map(read, items)

    def listed_shard(self, entry: ShardEntry) -> ShardManifest:
        """Return the manifest of a shard that a stage lists, checked against its digest."""
        shard = self.read_shard(entry.path)
        if shard.digest != entry.digest:
            raise StorageError(
                f"{self.storage.locate(entry.path)} is not the manifest that its stage lists; other shards are safe; rerun with --force --only {shard.stage}"
            )
        return shard

    def listed(self, manifest: StageManifest) -> list[ListedShard]:
        """Return the contents of the manifests of a stage's shards, in order."""
        return list(self.each_listed(manifest))

    def each_listed(self, manifest: StageManifest) -> Iterator[ListedShard]:
        """Yield the contents of the manifests of a stage's shards from the stage's index; a stage closed by version 0.1 has none, and each manifest is opened."""
        if manifest.index is None:
            return map(ListedShard.of, self.each_shard(manifest))
        return read_index(self.storage, manifest)

    def indexed(self, manifest: StageManifest, shards: Sequence[ListedShard]) -> StageManifest:
        """Write the index of a stage that is about to be closed; return its manifest with the index."""
        try:
            return write_index(self.storage, manifest, shards)
        except OSError as error:
            storage_full(error, self.storage.locate(f"{manifest.stage}/closed/{manifest.key}"))

    def close(self, manifest: StageManifest) -> StageManifest:
        """Publish a stage's manifest under the next number of its key."""
        return manifest.at(publish(self.storage, f"{manifest.stage}/closed/{manifest.key}", sealed(manifest)))

    @contextmanager
    def attempt(self, task: ShardTask) -> Generator[Attempt]:
        """Yield an attempt at a shard; files that it wrote but did not commit are removed when it ends."""
        attempt = Attempt(self.storage, task)
        try:
            yield attempt
        except OSError as error:
            storage_full(error, self.storage.locate(task.folder))
        finally:
            attempt.discard()

    def entry(self, manifest: Listing, table: str) -> FileEntry:
        """Return the only file that a manifest lists for a table.

        Raises:
            StorageError: it lists none, or several.

        """
        entries = [entry for entry in manifest.files if entry.table == table]
        if len(entries) != 1:
            raise StorageError(
                f"{self.storage.locate(manifest.path)} lists {len(entries)} files for {table}, expected one; rerun with --force --only {manifest.stage}"
            )
        return entries[0]

    def path(self, manifest: Listing, table: str) -> Path:
        """Return a verified path on this machine of the only file that a manifest lists for a table."""
        return self.verified(manifest, self.entry(manifest, table))

    def read(self, manifest: Listing, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return a shard's table after checking its sha256, or some of its columns after checking the hashes of their blocks.

        Raises:
            StorageError: the file is missing, truncated or changed, or cannot be read.

        """
        entry = self.entry(manifest, table) if columns is None else self._in_blocks(manifest, table)
        if columns is not None and entry.blocks:
            found = self._from_blocks(manifest, entry, partial(columns_of, columns=columns))
            if found is not None:
                return found
        if is_object_store(self.location):
            return read_buffer(self._bytes(manifest, entry), columns)
        return pq.read_table(
            self.verified(manifest, entry),
            columns=columns,
            partitioning=None,  # pyright: ignore[reportArgumentType]
            page_checksum_verification=True,
        )

    def read_rows(
        self, manifest: Listing, table: str, places: Sequence[int], columns: Sequence[str]
    ) -> pa.Table:
        """Return columns of the rows at these indices of a table, in their order, reading few other rows; raises like `read`."""
        entry = self._in_blocks(manifest, table)
        if entry.blocks:
            return self._from_blocks(manifest, entry, partial(rows_at, places=places, columns=columns))
        return self.read(manifest, table, list(columns)).take(pa.array(places, pa.int64()))

    def read_row_group(
        self,
        manifest: Listing,
        table: str,
        groups: RowGroups,
        number: int,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return one row group of a shard's table; besides it only the file's footer is read.

        Raises:
            StorageError: the file cannot be read, or the row group's bytes are not those that were written.

        """
        name = self.file_name(manifest, self.entry(manifest, table))
        try:
            return groups.read(number, partial(self.storage.read_range, name), columns)
        except OSError as error:
            unreadable(self.storage.locate(name), manifest.stage, error)
        except ValueError as error:
            raise StorageError(
                f"{self.storage.locate(name)}: {error} in row group {number}; {advice(manifest.stage)}"
            ) from None

    def schema(self, manifest: Listing, table: str) -> pa.Schema:
        """Return the columns of a shard's table."""
        entry = self._in_blocks(manifest, table)
        if entry.blocks:
            return self._from_blocks(manifest, entry, schema_of)
        if is_object_store(self.location):
            return pq.read_schema(pa.BufferReader(self._bytes(manifest, entry)))
        return pq.read_schema(self.verified(manifest, entry))

    def verified(self, manifest: Listing, entry: FileEntry) -> Path:
        """Return a path on this machine of a listed file after comparing size and sha256.

        Raises:
            StorageError: the file is missing, truncated or changed; the message names it, what was found and what was expected.

        """
        self._check_size(manifest, entry)
        name = self.file_name(manifest, entry)
        try:
            path = self.storage.local(name, entry.sha256)
            found = patient(sha256_of_file)(path)
        except OSError as error:
            unreadable(self.storage.locate(name), manifest.stage, error)
        check_hash(self.storage.locate(name), manifest.stage, entry, found)
        return path

    def verify(self, manifest: Listing) -> list[str]:
        """Hash every file of a shard; return one line for each that differs from what was committed."""
        complaints = []
        for entry in manifest.files:
            name = self.file_name(manifest, entry)
            try:
                self._check_size(manifest, entry)
                check_hash(self.storage.locate(name), manifest.stage, entry, self.storage.measure(name)[1])
            except OSError as error:
                complaints.append(f"{self.storage.locate(name)} cannot be read ({error.strerror or error})")
            except StorageError as error:
                complaints.append(str(error).partition(";")[0])
        return complaints

    def verify_index(self, manifest: StageManifest) -> list[str]:
        """Read a stage's index; return one line if it is damaged."""
        try:
            self.listed(manifest)
        except StorageError as error:
            return [str(error).partition(";")[0]]
        return []

    def file_name(self, manifest: Listing, entry: FileEntry) -> str:
        """Return a listed file's name relative to the store."""
        return f"{manifest.path.rpartition('/')[0]}/{entry.name}"

    def _in_blocks(self, manifest: Listing, table: str) -> FileEntry:
        """Return a table's file entry with the hashes of its blocks, which are only in the shard's manifest, not in the index."""
        entry = self.entry(manifest, table)
        if entry.size <= blocks.WHOLE_BYTES or not isinstance(manifest, ListedShard):
            return entry
        return self.entry(self.read_shard(manifest.path), table)

    def _from_blocks(
        self, manifest: Listing, entry: FileEntry, read: Callable[[pq.ParquetFile], _Read]
    ) -> _Read:
        """Return the result of `read` on a Parquet file; only the blocks that it needs are read and compared with their hashes."""
        if not is_object_store(self.location):  # on a disk the size takes no request
            self._check_size(manifest, entry)
        name = self.file_name(manifest, entry)
        file = BlockFile(entry.size, entry.blocks, partial(self.storage.read_range, name))
        try:
            with pa.PythonFile(file, mode="r") as opened:
                return read(pq.ParquetFile(opened, page_checksum_verification=True))
        except ValueError as error:
            raise StorageError(f"{self.storage.locate(name)}: {error}; {advice(manifest.stage)}") from None
        except OSError as error:
            unreadable(self.storage.locate(name), manifest.stage, error)

    def _bytes(self, manifest: Listing, entry: FileEntry) -> bytes:
        """Return the bytes of an object, verified."""
        name = self.file_name(manifest, entry)
        try:
            data = self.storage.read(name)
        except OSError as error:
            unreadable(self.storage.locate(name), manifest.stage, error)
        check_length(self.storage.locate(name), manifest.stage, entry, len(data))
        check_hash(self.storage.locate(name), manifest.stage, entry, hashlib.sha256(data).hexdigest())
        return data

    def _check_size(self, manifest: Listing, entry: FileEntry) -> None:
        place = self._place(manifest, entry)
        try:
            size = self.storage.size(self.file_name(manifest, entry))
        except OSError as error:
            unreadable(place, manifest.stage, error)
        check_length(place, manifest.stage, entry, size)

    def _place(self, manifest: Listing, entry: FileEntry) -> str:
        return self.storage.locate(self.file_name(manifest, entry))
