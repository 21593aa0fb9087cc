"""The list of a checkpoint's files with size and sha256, and what is wrong with a checkpoint."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from corgi.settings.section import digest
from corgi.storage.files import sha256_of_file, sync

COMMITTED = "COMMITTED.json"


class Entry(TypedDict):
    """A file of a checkpoint."""

    name: str
    size: int
    sha256: str


class Content(TypedDict):
    """What COMMITTED.json says: the files, what decides the weights, and the state of the training or facts of its end.

    What a listing does not say is empty.
    """

    files: list[Entry]
    meaning: str
    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


_NOTHING: Content = {"files": [], "meaning": "", "step": 0, "state": {}, "facts": {}}


@dataclass(frozen=True)
class Listing:
    """What COMMITTED.json says, or why it cannot be trusted."""

    folder: Path
    content: Content
    problem: str | None

    @property
    def files(self) -> list[Entry]:
        """Return the listed files: name, size, sha256."""
        return self.content["files"]

    def damaged(self, share: slice = slice(None)) -> str | None:
        """Return what is wrong with the first file, among a share of the listed ones, that is not as listed."""
        for entry in self.files[share]:
            path = self.folder / entry["name"]
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != entry["size"]:
                return f"{path} has {path.stat().st_size} bytes, {entry['size']} were written"
            if sha256_of_file(path) != entry["sha256"]:
                return f"{path} does not match its sha256"
        return None

    def unlisted(self) -> str | None:
        """Return a line that names a file which is not listed, if there is one: loading could run it."""
        listed = {entry["name"] for entry in self.files}
        strange = [path for path in files(self.folder) if str(path.relative_to(self.folder)) not in listed]
        return f"{strange[0]} is not listed" if strange else None


def read_listing(folder: Path) -> Listing:
    """Read a folder's listing and compare it with its own digest."""
    path = folder / COMMITTED
    try:
        content = json.loads(path.read_bytes())
        claimed = content.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError):
        return Listing(folder, _NOTHING, f"{path} cannot be read")
    problem = None if digest(content) == claimed else f"{path} was changed"
    whole: Any = {**_NOTHING, **content}
    return Listing(folder, whole, problem)


def files(folder: Path) -> list[Path]:
    """Return every file below a folder except the listing itself, by name."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMMITTED)


def entry(folder: Path, path: Path) -> Entry:
    """Make a file durable and return its entry in the listing."""
    sync(path)
    return {
        "name": str(path.relative_to(folder)),
        "size": path.stat().st_size,
        "sha256": sha256_of_file(path),
    }


def sync_folders(folder: Path, root: Path) -> None:
    """Make the names in a folder, below it and in the two above durable."""
    for path in [*(inner for inner in folder.rglob("*") if inner.is_dir()), folder, root, root.parent]:
        sync(path)
