"""Errors for a committed file that does not match its manifest: which file, what is wrong, what is safe and what to do."""

from typing import NoReturn

from corgi.settings.errors import StorageError
from corgi.storage.retries import is_passing
from corgi.tables.manifest import FileEntry


def advice(stage: str) -> str:
    """Return what is safe and what to do if a file of a stage's shard is damaged."""
    return f"other shards are safe; rerun with --only {stage} --force"


def check_length(place: str, stage: str, entry: FileEntry, size: int) -> None:
    """Compare the size of the file at a path with the size in its manifest.

    Raises:
        StorageError: they differ.

    """
    if size != entry.size:
        raise StorageError(f"{place} has {size} bytes, its manifest says {entry.size}; {advice(stage)}")


def check_hash(place: str, stage: str, entry: FileEntry, found: str) -> None:
    """Compare the sha256 of the file at a path with the one in its manifest.

    Raises:
        StorageError: they differ.

    """
    if found != entry.sha256:
        raise StorageError(
            f"{place} does not match its sha256: expected {entry.sha256}, found {found}; {advice(stage)}"
        )


def unreadable(place: str, stage: str, error: OSError) -> NoReturn:
    """Raise a one-line StorageError that says why a file cannot be read: it is missing, the storage does not respond now, or it is damaged."""
    if isinstance(error, FileNotFoundError):
        raise StorageError(f"{place} is listed but missing; {advice(stage)}") from None
    told = f"{place} cannot be read ({error.strerror or error})"
    if is_passing(error):
        raise StorageError(
            f"{told} after several attempts; committed work is safe; run the same command again",
            may_pass=True,
        ) from error
    raise StorageError(f"{told}; {advice(stage)}") from error
