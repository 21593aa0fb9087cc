"""Where committed files are stored: a disk or an object store. Names are relative to the root, parts separated by "/".

What is written is private until a manifest names it; only `put_if_absent` publishes, and it never overwrites.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from corgi.storage.errors import storage_full


class Storage(Protocol):
    """A store of files; a missing name raises FileNotFoundError, any other failure another OSError."""

    def locate(self, name: str) -> str:
        """Return a name as a person would write it: an absolute path or a URL."""
        ...

    def check(self) -> None:
        """Make sure that `put_if_absent` is one.

        Raises:
            StorageError: the store cannot be reached, or does not support conditional put.

        """
        ...

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        ...

    def measure(self, name: str) -> tuple[int, str]:
        """Return a file's bytes and sha256, read to its end."""
        ...

    def size(self, name: str) -> int:
        """Return a file's bytes without reading it."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder; none when there is no such folder."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder."""
        ...

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield every file below a folder, with its bytes."""
        ...

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a new private file; when the block has ended its bytes are durable."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Publish a file, complete and durable, unless the name is taken; return whether it was published."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file atomically."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        ...

    def make(self, folder: str) -> None:
        """Make a folder durable before anything is put into it."""
        ...

    def sync(self, folder: str) -> None:
        """Make the names in a folder durable."""
        ...

    def local(self, name: str, sha256: str) -> Path:
        """Return a path on this machine that holds the file; not verified."""
        ...


def is_object_store(root: str | Path) -> bool:
    """Return whether a root is a URL of an object store, such as s3://bucket/runs."""
    return "://" in str(root)


def open_storage(place: str | Path, cache: Path | None = None) -> Storage:
    """Return the storage of a folder or URL; nothing is created. `cache` holds copies of an object store's files."""
    if is_object_store(place):
        from corgi.storage.objects import ObjectStorage

        return ObjectStorage(str(place), cache)
    return Disk(Path(place).absolute())


class Disk:
    """A folder of a disk, local or shared."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is created until something is written."""
        self.folder = folder

    def locate(self, name: str) -> str:
        """Return the absolute path."""
        return str(self.folder / name)

    def check(self) -> None:
        """Do nothing: `link` refuses a taken name on every disk."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (self.folder / name).read_bytes()

    def measure(self, name: str) -> tuple[int, str]:
        """Return a file's bytes and sha256."""
        with (self.folder / name).open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
            return handle.tell(), found

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return (self.folder / name).stat().st_size

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        try:
            return os.listdir(self.folder / folder)
        except FileNotFoundError:
            return []

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        try:
            return sorted(entry.name for entry in os.scandir(self.folder / folder) if entry.is_dir())
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield every file below a folder, with its bytes."""
        for place, _, files in os.walk(self.folder / folder):
            for name in files:
                path = Path(place, name)
                yield path.relative_to(self.folder).as_posix(), path.stat().st_size

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file; it is synced when the block ends."""
        with (self.folder / name).open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a private file, sync it, and `link` it under the name: whole or not at all, never over another."""
        path = self.folder / name
        private = path.with_name(f".{uuid.uuid4().hex}.json")
        try:
            with private.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            if not linked(private, path):
                return False
        finally:
            private.unlink(missing_ok=True)
        _fsync_folder(path.parent)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file atomically."""
        write_file(self.folder / name, data)

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        (self.folder / name).unlink(missing_ok=True)

    def make(self, folder: str) -> None:
        """Make a folder and its parents, each durable in the one above."""
        make_folder(self.folder / folder)

    def sync(self, folder: str) -> None:
        """Sync a folder."""
        _fsync_folder(self.folder / folder)

    def local(self, name: str, sha256: str) -> Path:
        """Return the file's own path."""
        return self.folder / name


def write_file(path: Path, data: bytes) -> None:
    """Replace a file of a run's own folder (reports, run.json) atomically."""
    private = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        make_folder(path.parent)
        with private.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        private.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        private.unlink(missing_ok=True)
        storage_full(error, path)


def make_folder(folder: Path) -> None:
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


def linked(private: Path, path: Path) -> bool:
    """Give a file a second name unless the name is taken; returns whether the name is this file's.

    NFS may lose the reply to a link that was made and answer the repeated request with "exists": the two are one file then.
    """
    try:
        os.link(private, path)
    except FileExistsError:
        return os.path.samefile(private, path)
    return True
