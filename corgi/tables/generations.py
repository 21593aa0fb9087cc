"""Numbered manifests in one folder: each is published by put-if-absent, and the one with the highest number is valid."""

from typing import TypeVar

from corgi.settings.errors import StorageError
from corgi.storage.errors import storage_full
from corgi.storage.retries import is_passing
from corgi.storage.storage import Storage
from corgi.tables.manifest import ShardManifest, StageManifest, unsealed

_Manifest = TypeVar("_Manifest", ShardManifest, StageManifest)


def generation(name: str) -> int | None:
    """Return the number in a manifest's file name, None for any other file."""
    stem = name.removeprefix("manifest-").removesuffix(".json")
    return int(stem) if name == f"manifest-{stem}.json" and stem.isdigit() else None


def newest(storage: Storage, folder: str) -> str | None:
    """Return the name of a folder's manifest with the highest number; None while there is none."""
    best = _highest(storage.names(folder))
    return None if best < 0 else f"{folder}/manifest-{best}.json"


def publish(storage: Storage, folder: str, text: str) -> str:
    """Publish a manifest under the next free number and return its name.

    Raises:
        StorageError: the storage refuses the write.

    """
    try:
        storage.make(folder)
        number = _highest(storage.names(folder)) + 1
        while not storage.put_if_absent(f"{folder}/manifest-{number}.json", text.encode()):
            number += 1
    except OSError as error:
        storage_full(error, storage.locate(folder))
    return f"{folder}/manifest-{number}.json"


def read_sealed(storage: Storage, name: str, kind: type[_Manifest]) -> _Manifest:
    """Return a manifest after checking it against the digest inside it.

    Raises:
        StorageError: it is missing, damaged or cannot be read; the message names it.

    """
    where = storage.locate(name)
    try:
        return unsealed(storage.read(name).decode(), kind).at(name)
    except FileNotFoundError:
        raise StorageError(f"{where} is missing; other shards are safe; run the same command again") from None
    except ValueError:
        raise StorageError(
            f"{where} is not the manifest that was written; other shards are safe; remove it and run the same command"
        ) from None
    except OSError as error:
        raise StorageError(
            f"{where} cannot be read ({error.strerror or error}); committed work is safe; run the same command again",
            may_pass=is_passing(error),
        ) from error


def _highest(names: list[str]) -> int:
    return max((number for name in names if (number := generation(name)) is not None), default=-1)
