"""The storage of a root, which is a folder or an object store's URL."""

from pathlib import Path

from corgi.storage.disk import Disk
from corgi.storage.storage import Storage


def is_object_store(root: str | Path) -> bool:
    """Return whether a root is a URL of an object store, such as s3://bucket/runs."""
    return "://" in str(root)


def open_storage(root: str | Path, cache: Path | None = None) -> Storage:
    """Return the storage of a folder or URL; nothing is created. `cache` is the folder for copies of an object store's files."""
    if is_object_store(root):
        from corgi.storage.objects import ObjectStorage

        return ObjectStorage(str(root), cache)
    return Disk(Path(root).absolute())
