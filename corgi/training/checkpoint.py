"""Committed checkpoints: only this module saves, chooses, prunes and finishes.

Every rank writes its own files into `checkpoints/step-<step>.<attempt>/`, syncs and hashes them; when all are there,
rank 0 publishes COMMITTED.json by put-if-absent. A folder without it is not a checkpoint. A checkpoint is used only
after every listed file, and no other, was found with its size and sha256.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from corgi.settings.errors import StorageError
from corgi.settings.section import digest
from corgi.tables.store import storage_full
from corgi.training.ranks import barrier, from_first, gathered, rank, world_size
from corgi.training.training import Training

COMMITTED = "COMMITTED.json"
_FOLDER = re.compile(r"step-(\d{9,})\.([0-9a-f]+)")
_OWNED = re.compile(r"pp_rank_(\d+)_")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were verified: the only kind that may be loaded."""

    folder: Path
    step: int
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training folder; its methods are collectives."""

    def __init__(self, training: Training, keep: int) -> None:
        """Name this attempt: what another attempt left half-written is never written into again."""
        self.folder = training.path / "checkpoints"
        self.meaning = training.meaning
        self.keep = keep
        self.attempt = from_first(uuid.uuid4().hex[:8])
        self._damaged: set[Path] = set()

    def newest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint; a damaged one is passed over with one warning that names the file.

        Raises:
            StorageError: the newest whole checkpoint belongs to other settings.

        """
        for folder in from_first(_committed(self.folder)):
            listing, problem = _read_listing(folder)
            problem = problem or _first(gathered(_problem(folder, listing["files"][rank() :: world_size()])))
            problem = problem or _unlisted(folder, listing["files"])
            if problem is None:
                return self._chosen(folder, listing)
            self._damaged.add(folder)
            if rank() == 0:
                _log.warning("checkpoint passed over: %s; training goes on from the one before it", problem)
        return None

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Checkpoint:
        """Commit a checkpoint of what `write` puts into a folder; every rank calls it, each writes its own files.

        Raises:
            StorageError: the disk refused; earlier checkpoints stay.

        """
        folder = self.folder / f"step-{step:09d}.{self.attempt}"
        if (folder / COMMITTED).exists():
            raise StorageError(f"{folder} is committed already; it is untouched; run the same command again")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            barrier()
            _write(write, folder)
            barrier()
            entries = [_entry(folder, path) for path in _files(folder) if _owner(path) == rank()]
            files = sorted(
                (entry for part in gathered(entries) for entry in part), key=lambda entry: entry["name"]
            )
            if rank() == 0:
                _sync_folders(folder, self.folder)
                listing = {"step": step, "meaning": self.meaning, "files": files, "state": state}
                _publish(folder / COMMITTED, {**listing, "digest": digest(listing)})
                self._prune(step)
        except OSError as error:
            storage_full(error, folder)
        barrier()
        return Checkpoint(folder, step, state)

    def _chosen(self, folder: Path, listing: dict[str, Any]) -> Checkpoint:
        if listing["meaning"] != self.meaning:
            raise StorageError(
                f"{folder} belongs to a training with other settings; it is untouched; use another folder"
            )
        return Checkpoint(folder, listing["step"], listing["state"])

    def _prune(self, step: int) -> None:
        """Remove, now that `step` is committed: older committed ones beyond `keep`, twins, damaged and half-written ones."""
        mine = self.folder / f"step-{step:09d}.{self.attempt}"
        committed = [path for path in _committed(self.folder) if path not in self._damaged]
        kept = [path for path in committed if path == mine or _step(path) != step][: self.keep]
        for path in self.folder.iterdir():
            if _FOLDER.fullmatch(path.name) and path not in kept and _step(path) <= step:
                shutil.rmtree(path, ignore_errors=True)


def finish(training: Training, weights: dict[str, Tensor], facts: dict[str, Any]) -> Path:
    """Commit the final weights: written privately, renamed, then listed; called on rank 0 only.

    Raises:
        StorageError: the disk refused; the last checkpoint stays.

    """
    folder = training.path / "final"
    path = folder / "weights.safetensors"
    private = folder / f".weights.{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / COMMITTED).unlink(missing_ok=True)
        save_file(weights, private)
        _sync(private)
        private.replace(path)
        _sync(folder)
        listing = {"files": [_entry(folder, path)], "meaning": training.meaning, "facts": facts}
        _publish(folder / COMMITTED, {**listing, "digest": digest(listing)})
        _sync(training.path)
    except OSError as error:
        storage_full(error, folder)
    return path


def is_finished(training: Training) -> bool:
    """Say whether the final weights are committed and whole; damaged ones are made again, with a warning."""
    folder = training.path / "final"
    if not (folder / COMMITTED).exists():
        return False
    listing, problem = _read_listing(folder)
    problem = problem or _problem(folder, listing["files"])
    if problem is not None:
        _log.warning("final weights are made again from the last checkpoint: %s", problem)
        return False
    if listing["meaning"] != training.meaning:
        raise StorageError(
            f"{folder} belongs to a training with other settings; it is untouched; use another folder"
        )
    return True


def final_weights(training: Training) -> Path:
    """Return the path of the averaged weights, safetensors by parameter name, verified.

    Raises:
        StorageError: the training is not finished.

    """
    if not is_finished(training):
        raise StorageError(
            f"{training.path / 'final'} holds no whole weights; checkpoints are safe; run the same command again"
        )
    return training.path / "final" / "weights.safetensors"


def final_facts(training: Training) -> dict[str, Any]:
    """Return what `finish` noted beside the final weights: steps, skipped steps, figures on val."""
    final_weights(training)
    return _read_listing(training.path / "final")[0]["facts"]


def _write(write: Callable[[Path], None], folder: Path) -> None:
    try:
        write(folder)
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "No space left" not in str(error):
            raise
        raise StorageError(
            f"{folder}: the disk refused a checkpoint ({str(error).splitlines()[0][:120]}); earlier checkpoints are safe; "
            "make room, then run the same command"
        ) from error


def _committed(folder: Path) -> list[Path]:
    """Return the committed checkpoints, newest step first."""
    if not folder.is_dir():
        return []
    found = [
        path for path in folder.iterdir() if _FOLDER.fullmatch(path.name) and (path / COMMITTED).exists()
    ]
    return sorted(found, key=lambda path: (-_step(path), path.name))


def _step(path: Path) -> int:
    return int(path.name.partition(".")[0].removeprefix("step-"))


def _read_listing(folder: Path) -> tuple[dict[str, Any], str | None]:
    """Return a listing, and what is wrong with it."""
    path = folder / COMMITTED
    try:
        listing = json.loads(path.read_bytes())
        claimed = listing.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError):
        return {"files": []}, f"{path} cannot be read"
    return listing, None if digest(listing) == claimed else f"{path} was changed"


def _problem(folder: Path, entries: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with the first listed file that is not as listed."""
    for entry in entries:
        path = folder / entry["name"]
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{path} has {path.stat().st_size} bytes, {entry['size']} were written"
        if _sha256(path) != entry["sha256"]:
            return f"{path} does not match its sha256"
    return None


def _unlisted(folder: Path, entries: list[dict[str, Any]]) -> str | None:
    """Return a file that nobody listed: loading would run whatever lies there."""
    listed = {entry["name"] for entry in entries}
    strange = [path for path in _files(folder) if str(path.relative_to(folder)) not in listed]
    return f"{strange[0]} is not listed" if strange else None


def _first(problems: list[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMMITTED)


def _owner(path: Path) -> int:
    """Return the rank that wrote a file: DeepSpeed puts it into the name of a shard."""
    found = _OWNED.search(path.name)
    return int(found.group(1)) if found else 0


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    _sync(path)
    return {"name": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": _sha256(path)}


def _publish(path: Path, listing: dict[str, Any]) -> None:
    """Put a listing where none is: `link` refuses a name that is taken."""
    private = path.parent / f".{uuid.uuid4().hex}.json"
    try:
        private.write_text(json.dumps(listing, sort_keys=True))
        _sync(private)
        os.link(private, path)
    finally:
        private.unlink(missing_ok=True)
    _sync(path.parent)


def _sync_folders(folder: Path, root: Path) -> None:
    for path in [*(inner for inner in folder.rglob("*") if inner.is_dir()), folder, root, root.parent]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
