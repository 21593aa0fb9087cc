"""Committed tables: private files first, one manifest last; nothing unlisted is ever read.

A shard's folder holds data files under attempt-private names and numbered manifests, each published
by put-if-absent (`link`). The highest number counts. Nothing outside this module commits a table.
"""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import StorageError
from corgi.settings.section import digest
from corgi.tables.manifest import FileEntry, RowCounts, ShardManifest, StageManifest, sealed, unsealed

VECTOR_ROW_GROUP_ROWS = 10_000
_Manifest = TypeVar("_Manifest", ShardManifest, StageManifest)


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to make one shard: plain data, names only.

    `inputs` maps each upstream stage to the paths, relative to the store, of the shard manifests read.
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


class Store:
    """The folder of committed tables under one root."""

    def __init__(self, root: str | Path) -> None:
        """Open the store of a root folder on a disk; nothing is created until something is written."""
        if "://" in str(root):
            raise StorageError(
                f"root={root}: object storage is not supported as root; nothing was started; give an absolute path"
            )
        self.root = Path(root).absolute() / "store"

    def shard_folder(self, stage: str, key: str) -> Path:
        """Return where a shard's files and manifests lie."""
        return self.root / stage / key

    def shard(self, stage: str, key: str) -> ShardManifest | None:
        """Return a shard's newest manifest, or None while it is not committed."""
        found = self._newest(self.shard_folder(stage, key))
        return None if found is None else self.read_shard(found)

    def stage(self, stage: str, key: str) -> StageManifest | None:
        """Return a closed stage's newest manifest, or None while it is not complete."""
        found = self._newest(self.root / stage / "closed" / key)
        return None if found is None else _read_sealed(self.root, found, StageManifest)

    def read_shard(self, path: str) -> ShardManifest:
        """Return the shard manifest at a path relative to the store."""
        return _read_sealed(self.root, path, ShardManifest)

    def shards(self, manifest: StageManifest) -> list[ShardManifest]:
        """Return the shard manifests a stage manifest lists, in order, each checked against its digest."""
        found = []
        for entry in manifest.shards:
            shard = self.read_shard(entry.path)
            if shard.digest != entry.digest:
                raise StorageError(
                    f"{self.root / entry.path} is not the manifest its stage lists; other shards are safe; rerun with --force --only {shard.stage}"
                )
            found.append(shard)
        return found

    def close(self, manifest: StageManifest) -> StageManifest:
        """Publish a stage's manifest as the next generation under its key."""
        folder = self.root / manifest.stage / "closed" / manifest.key
        path = _publish(folder, sealed(manifest))
        return manifest.at(str(path.relative_to(self.root)))

    @contextmanager
    def attempt(self, task: ShardTask) -> Iterator["Attempt"]:
        """Yield an attempt at a shard; what it wrote but did not commit is removed when it ends."""
        attempt = Attempt(self, task)
        try:
            yield attempt
        except OSError as error:
            storage_full(error, self.shard_folder(task.stage, task.key))
        finally:
            attempt.discard()

    def path(self, manifest: ShardManifest, table: str) -> Path:
        """Return the verified path of the only file a manifest lists for a table."""
        entries = [entry for entry in manifest.files if entry.table == table]
        if len(entries) != 1:
            raise StorageError(
                f"{self.root / manifest.path} lists {len(entries)} files for {table}, expected one; rerun with --force --only {manifest.stage}"
            )
        return self.verified(manifest, entries[0])

    def read(self, manifest: ShardManifest, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return a shard's table, read after its sha256 was checked."""
        return pq.read_table(
            self.path(manifest, table),
            columns=columns,
            partitioning=None,  # pyright: ignore[reportArgumentType]
            page_checksum_verification=True,
        )

    def verified(self, manifest: ShardManifest, entry: FileEntry) -> Path:
        """Return a listed file's path after comparing size and sha256.

        Raises:
            StorageError: the file is missing, cut or changed; the line names it.

        """
        path = self.root / Path(manifest.path).parent / entry.name
        advice = f"other shards are safe; rerun with --only {manifest.stage} --force"
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise StorageError(f"{path} is listed but missing; {advice}") from None
        if size != entry.size:
            raise StorageError(f"{path} has {size} bytes, its manifest says {entry.size}; {advice}")
        if _sha256(path) != entry.sha256:
            raise StorageError(f"{path} does not match its sha256; {advice}")
        return path

    def _newest(self, folder: Path) -> str | None:
        numbers = [_generation(name) for name in _names(folder)]
        best = max((number for number in numbers if number is not None), default=None)
        return None if best is None else str((folder / f"manifest-{best}.json").relative_to(self.root))


class Attempt:
    """One try at making a shard: writes private files, then publishes the manifest."""

    def __init__(self, store: Store, task: ShardTask) -> None:
        """Prepare the shard's folder; files get this attempt's own prefix."""
        self.store = store
        self.task = task
        self.folder = store.shard_folder(task.stage, task.key)
        self.prefix = uuid.uuid4().hex[:12]
        self._files: list[FileEntry] = []
        try:
            _make_folder(self.folder)
        except OSError as error:
            storage_full(error, self.folder)

    def write_table(self, table: str, data: pa.Table) -> None:
        """Write one Parquet file: page checksums on, vectors without dictionary, nothing of the clock inside."""
        path = self._new_path(f"{table}.parquet")
        plain = [
            f.name
            for f in data.schema
            if not (pa.types.is_fixed_size_list(f.type) or pa.types.is_floating(f.type) or f.name == "image")
        ]
        with path.open("wb") as sink:
            pq.write_table(
                data,
                sink,
                compression="zstd",
                use_dictionary=plain,  # pyright: ignore[reportArgumentType]
                write_page_checksum=True,
                row_group_size=VECTOR_ROW_GROUP_ROWS,
                store_schema=True,
            )
        self._add(table, path, data.num_rows)

    def write_bytes(self, table: str, suffix: str, data: bytes) -> None:
        """Write one file that is not a table, such as safetensors, JSON or a picture."""
        path = self._new_path(f"{table}{suffix}")
        path.write_bytes(data)
        self._add(table, path, 0)

    def commit(
        self, rows: RowCounts, facts: dict[str, Any] | None = None, timings: dict[str, float] | None = None
    ) -> ShardManifest:
        """Publish the manifest: from here on, and not before, the shard exists."""
        _fsync_folder(self.folder)
        task = self.task
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
            facts=facts or {},
        )
        path = _publish(self.folder, sealed(manifest))
        if timings:
            (self.folder / f"{self.prefix}-stats.json").write_text(json.dumps(timings))
        return manifest.at(str(path.relative_to(self.store.root)))

    def discard(self) -> None:
        """Remove this attempt's files unless a manifest lists them.

        The folder is asked, not a flag: an error or a Ctrl-C may come between the link and any flag.
        """
        if not any(
            self.prefix in path.read_text(errors="replace") for path in self.folder.glob("manifest-*.json")
        ):
            for path in self.folder.glob(f"{self.prefix}-*"):
                path.unlink(missing_ok=True)

    def _new_path(self, name: str) -> Path:
        return self.folder / f"{self.prefix}-{name}"

    def _add(self, table: str, path: Path, rows: int) -> None:
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())
        self._files.append(
            FileEntry(table=table, name=path.name, size=path.stat().st_size, sha256=_sha256(path), rows=rows)
        )


def table_digest(table: pa.Table) -> str:
    """Return a digest of a table's rows whatever their order and their files' layout."""
    lines = sorted(repr(sorted(row.items())) for row in table.to_pylist())
    return digest(lines)


def storage_full(error: OSError, where: Path) -> NoReturn:
    """Turn an operating system's refusal to write into one line.

    Raises:
        StorageError: always.

    """
    cause = (
        "no space is left"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else f"cannot write ({error.strerror or error})"
    )
    raise StorageError(
        f"{where}: {cause}; committed work is safe; make room or choose another root, then run the same command"
    ) from error


def write_file(path: Path, data: bytes) -> None:
    """Replace a file of a run's own folder (reports, run.json) whole or not at all."""
    private = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        _make_folder(path.parent)
        with private.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        private.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        private.unlink(missing_ok=True)
        storage_full(error, path)


def _publish(folder: Path, text: str) -> Path:
    """Publish `text` as the next free manifest number; `link` refuses a name that is taken."""
    private = folder / f".{uuid.uuid4().hex}.json"
    try:
        _make_folder(folder)
        try:
            with private.open("w") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            return _link_next(private, folder)
        finally:
            private.unlink(missing_ok=True)
    except OSError as error:
        storage_full(error, folder)


def _link_next(private: Path, folder: Path) -> Path:
    taken = [number for name in _names(folder) if (number := _generation(name)) is not None]
    number = max(taken, default=-1) + 1
    while True:
        path = folder / f"manifest-{number}.json"
        try:
            os.link(private, path)
        except FileExistsError:
            number += 1
            continue
        _fsync_folder(folder)
        return path


def _generation(name: str) -> int | None:
    stem = name.removeprefix("manifest-").removesuffix(".json")
    return int(stem) if name == f"manifest-{stem}.json" and stem.isdigit() else None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _read_sealed(root: Path, path: str, kind: type[_Manifest]) -> _Manifest:
    try:
        return unsealed((root / path).read_text(), kind).at(path)
    except FileNotFoundError:
        raise StorageError(
            f"{root / path} is missing; other shards are safe; run the same command again"
        ) from None
    except ValueError:
        raise StorageError(
            f"{root / path} is not the manifest that was written; other shards are safe; remove it and run the same command"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable in the one above before anything is put into it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
