"""Rows that were taken down stay so: one growing list per root, stored as numbered manifests."""

from pydantic import BaseModel, ConfigDict, field_serializer

from corgi.settings.errors import StorageError
from corgi.storage.storage import Storage
from corgi.tables.generations import newest, publish
from corgi.tables.manifest import sealed, unsealed

_FOLDER = "taken-down"


class TakenDown(BaseModel):
    """Identities, canonical URLs and sha256 of raw bytes that no table of this root may contain again."""

    model_config = ConfigDict(frozen=True)
    uids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()

    @field_serializer("uids", "urls", "hashes")
    def _in_order(self, names: frozenset[str]) -> list[str]:
        return sorted(names)

    def __or__(self, other: "TakenDown") -> "TakenDown":
        """Return the union."""
        return TakenDown(
            uids=self.uids | other.uids, urls=self.urls | other.urls, hashes=self.hashes | other.hashes
        )

    def names(self, uid: str | None, url: str | None = None, sha256: str | None = None) -> bool:
        """Return whether a row is on the take-down list."""
        return uid in self.uids or url in self.urls or sha256 in self.hashes


def read_taken_down(storage: Storage) -> TakenDown:
    """Return what was taken down under a root; usually it is empty.

    Raises:
        StorageError: the list is damaged.

    """
    name = newest(storage, _FOLDER)
    if name is None:
        return TakenDown()
    try:
        return unsealed(storage.read(name).decode(), TakenDown)
    except (ValueError, OSError) as error:
        raise StorageError(
            f"{storage.locate(name)} is not the list that was written; tables are safe; remove it and run --take-down again"
        ) from error


def take_down(storage: Storage, more: TakenDown) -> TakenDown:
    """Add to what was taken down; return all of it."""
    before = read_taken_down(storage)
    total = before | more
    if total != before:
        publish(storage, _FOLDER, sealed(total))
    return total
