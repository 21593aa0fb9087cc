"""Crash-safe files on a disk: synced, replaced atomically, or published by `link`."""

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
    """Make a folder and its parents; each is durable in its parent before anything is put into it."""
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
    """Return the sha256 of a file on this machine, in lower-case hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def publish(path: Path, data: bytes, private: Path) -> bool:
    """Write a private file, sync it, and `link` it under a name unless the name is taken; return whether it was published.

    The private file must be on the same disk. It may remain after a kill, so the caller should choose a place where that does no harm.
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
    """Give a file a second name unless the name is taken; return whether the name now belongs to this file.

    NFS may lose the reply to a successful link and answer the repeated request with "exists"; then both names are the same file.
    """
    try:
        os.link(private, path)
    except FileExistsError:
        return os.path.samefile(private, path)
    return True
