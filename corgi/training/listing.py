"""The list of a checkpoint's files with size and sha256, and checks of a checkpoint against it."""

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
    """The content of COMMITTED.json: the files, a digest of what determines the weights, and a training's state or final facts.

    A field that a listing does not have is empty.
    """

    files: list[Entry]
    meaning: str
    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


_NOTHING: Content = {"files": [], "meaning": "", "step": 0, "state": {}, "facts": {}}


@dataclass(frozen=True)
class Listing:
    """The content of COMMITTED.json, and what is wrong with it, if anything."""

    folder: Path
    content: Content
    problem: str | None

    @property
    def files(self) -> list[Entry]:
        """Return the listed files: name, size, sha256."""
        return self.content["files"]

    def damaged(self, share: slice = slice(None)) -> str | None:
        """Check a share of the listed files and return what is wrong with the first that is not as listed; None if all are."""
        for entry in self.files[share]:
            path = self.folder / entry["name"]
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != entry["size"]:
                return f"{path} has {path.stat().st_size} bytes, but {entry['size']} were written"
            if sha256_of_file(path) != entry["sha256"]:
                return f"{path} does not match its sha256"
        return None

    def unlisted(self) -> str | None:
        """Return a line that names a file that is not listed, if there is one: loading the checkpoint could execute it."""
        listed = {entry["name"] for entry in self.files}
        unlisted = [path for path in files(self.folder) if str(path.relative_to(self.folder)) not in listed]
        return f"{unlisted[0]} is not listed" if unlisted else None


def read_listing(folder: Path) -> Listing:
    """Read a folder's listing and check it against the digest that it contains."""
    path = folder / COMMITTED
    try:
        content = json.loads(path.read_bytes())
        claimed = content.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError):
        return Listing(folder, _NOTHING, f"{path} cannot be read")
    problem = None if digest(content) == claimed else f"{path} was changed"
    complete: Any = {**_NOTHING, **content}
    return Listing(folder, complete, problem)


def files(folder: Path) -> list[Path]:
    """Return every file below a folder except the listing itself, sorted by path."""
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
    """Make the directory entries in a folder, below it and in the two folders above it durable."""
    for path in [*(inner for inner in folder.rglob("*") if inner.is_dir()), folder, root, root.parent]:
        sync(path)
