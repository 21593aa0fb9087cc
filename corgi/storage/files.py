"""Files of a disk that survive a crash: synced, replaced atomically, or published by `link`."""

import hashlib
import os
import uuid
from pathlib import Path

from corgi.storage.errors import storage_full


def write_file(path: Path, data: bytes) -> None:
    """Replace a file of a run's own folder (reports, run.json) atomically."""
    private = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        make_folder(path.parent)
        _write(private, data)
        private.replace(path)
        sync(path.parent)
    except OSError as error:
        private.unlink(missing_ok=True)
        storage_full(error, path)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable in the one above before anything is put into it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file on this machine, lower hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def publish(path: Path, data: bytes, private: Path) -> bool:
    """Write a private file, sync it, and `link` it under a name unless the name is taken; return whether it was published.

    The private file must be on the same disk. A kill may leave it behind: the caller chooses where that does no harm.
    """
    try:
        _write(private, data)
        if not linked(private, path):
            return False
    finally:
        private.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def linked(private: Path, path: Path) -> bool:
    """Give a file a second name unless the name is taken; returns whether the name is this file's.

    NFS may lose the reply to a link that was made and answer the repeated request with "exists": the two are one file then.
    """
    try:
        os.link(private, path)
    except FileExistsError:
        return os.path.samefile(private, path)
    return True
