"""Committed checkpoints: only this module saves, selects and prunes them, and commits the final weights.

The state of a step is copied first. Every rank then writes, syncs and hashes its own files in
`checkpoints/step-<step>.<attempt>/`, in a thread. When all files are written, rank 0 publishes COMMITTED.json by put-if-absent.
A folder without that file is not a checkpoint. A checkpoint is used only after a check that it has exactly the listed files,
each with the listed size and sha256.
"""

import copy
import json
import logging
import math
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from corgi.settings.errors import StorageError
from corgi.settings.section import digest
from corgi.storage.errors import storage_full
from corgi.storage.files import publish, sync
from corgi.tracking.tracker import val_figures
from corgi.training.background import Background
from corgi.training.listing import COMMITTED, Content, entry, files, read_listing, sync_folders
from corgi.training.ranks import barrier, from_first, gathered, own_group, rank, world_size
from corgi.training.training import Training
from corgi.training.upload import Uploader, uploader

_FOLDER = re.compile(r"step-(\d{9,})\.([0-9a-f]+)")
_OWNED = re.compile(r"pp_rank_(\d+)_")
_CLOSE_TIMEOUT_S = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were verified. Only such a checkpoint may be loaded."""

    folder: Path
    step: int
    state: dict[str, Any]
    zero_stage: int


class Checkpoints:
    """The checkpoints of one training folder; its methods are collectives."""

    def __init__(self, training: Training) -> None:
        """Give this attempt a unique name, so that it never writes into a folder that another attempt left incomplete."""
        self.training = training
        self.folder = training.path / "checkpoints"
        self.settings = training.settings
        self.attempt = from_first(uuid.uuid4().hex[:8])
        self.group = own_group()
        """A process group of all workers, for the thread that writes."""
        self._background = Background()
        self.uploader: Uploader | None = uploader(training) if rank() == 0 else None
        self._damaged: set[Path] = set()

    def newest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint. A damaged checkpoint is skipped, with one warning that names the file.

        If object storage has a newer one, it is fetched first.

        Raises:
            StorageError: the newest complete checkpoint belongs to a training with other settings.

        """
        if self.uploader is not None:
            self.uploader.fetch_newer(self.folder, max(map(_step, _committed(self.folder)), default=0))
        for folder in from_first(_committed(self.folder)):
            listing = read_listing(folder)
            problem = listing.problem or _first(gathered(listing.damaged(slice(rank(), None, world_size()))))
            problem = problem or listing.unlisted()
            if problem is None:
                return self._chosen(folder, listing.content)
            self._damaged.add(folder)
            if rank() == 0:
                _log.warning("checkpoint skipped: %s; training continues from the one before it", problem)
        return None

    def folder_of(self, step: int) -> Path:
        """Return the folder of this attempt's checkpoint at a step."""
        return self.folder / f"step-{step:09d}.{self.attempt}"

    def begin(self, step: int, state: Mapping[str, object], write: Callable[[Path], None]) -> None:
        """Start to commit a checkpoint in a thread, as `save` does; the data that `write` writes must not change meanwhile.

        Waits first until the previous checkpoint has been committed. Every rank calls this.

        Raises:
            StorageError: the previous checkpoint could not be written; earlier ones are kept.

        """
        own_state = copy.deepcopy(state)  # the training changes the original
        self._background.begin(lambda: self.save(step, own_state, write))

    def check(self) -> None:
        """Raise the thread's error if it failed, so that no training continues without writing checkpoints."""
        self._background.check()

    def wait(self) -> None:
        """Wait until the last checkpoint begun has been committed; raise the error of `save` if it failed."""
        self._background.wait()

    def save(self, step: int, state: Mapping[str, object], write: Callable[[Path], None]) -> Checkpoint:
        """Commit a checkpoint of the files that `write` writes into a folder. Every rank calls this and writes its own files.

        Raises:
            StorageError: the checkpoint could not be written; earlier ones are kept.

        """
        folder = self.folder_of(step)
        if (folder / COMMITTED).exists():
            raise StorageError(
                f"{folder} is already committed; it was not modified; run the same command again"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            barrier(self.group)
            _write(write, folder)
            barrier(self.group)
            entries = [entry(folder, path) for path in files(folder) if _owner(path) == rank()]
            everyone = gathered(entries, self.group)
            listed = sorted((line for part in everyone for line in part), key=lambda line: line["name"])
            if rank() == 0:
                sync_folders(folder, self.folder)
                listing = {"step": step, "meaning": self.training.meaning, "files": listed, "state": state}
                _publish(folder / COMMITTED, {**listing, "digest": digest(listing)})
                self._prune(step)
        except OSError as error:
            storage_full(error, folder)
        barrier(self.group)
        if self.uploader is not None:
            self.uploader.put(folder)
        return Checkpoint(folder, step, dict(state), self.settings.zero_stage)

    def close(self) -> None:
        """Wait a bounded time for the last checkpoint and for uploads."""
        is_done = self._background.close(_CLOSE_TIMEOUT_S)
        if self.uploader is not None:
            self.uploader.close()
        if is_done and self.group is not None:
            dist.destroy_process_group(self.group)

    def _chosen(self, folder: Path, listing: Content) -> Checkpoint:
        for stage in (self.settings.zero_stage, 0, 1, 2, 3):
            if listing["meaning"] == self.training.meaning_at(stage):
                return Checkpoint(folder, listing["step"], listing["state"], stage)
        raise _of_other_settings(folder)

    def _prune(self, step: int) -> None:
        """Delete checkpoints that are superseded, duplicated, corrupt or incomplete, now that `step` is committed."""
        mine = self.folder_of(step)
        committed = [path for path in _committed(self.folder) if path not in self._damaged]
        unique = [path for path in committed if path == mine or _step(path) != step]
        kept = {*unique[: self.settings.keep_checkpoints], *self._best(unique)}
        for path in self.folder.glob(".listing.*.json"):
            path.unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if _FOLDER.fullmatch(path.name) and path not in kept and _step(path) <= step:
                (path / COMMITTED).unlink(missing_ok=True)  # a partly deleted one must not look complete
                shutil.rmtree(path, ignore_errors=True)

    def _best(self, committed: list[Path]) -> list[Path]:
        """Return the best checkpoints by the metric measured at their own step. Those without a finite value are not ranked."""
        if not self.settings.keep_best:
            return []
        sign = 1 if self.settings.best_is == "largest" else -1
        figures = val_figures(self.training.metrics_file)
        measured = [(figures.get(_step(path), {}).get(self.settings.best_metric), path) for path in committed]
        scored = [
            (sign * value, _step(path), path)
            for value, path in measured
            if value is not None and math.isfinite(value)
        ]
        return [path for *_, path in sorted(scored, reverse=True)[: self.settings.keep_best]]


def finish(training: Training, weights: dict[str, Tensor], facts: Mapping[str, object]) -> Path:
    """Commit the final weights; called on rank 0 only. They are written to a temporary file, which is renamed and then listed.

    Raises:
        StorageError: the weights could not be written; the last checkpoint is kept.

    """
    folder = training.path / "final"
    path = folder / "weights.safetensors"
    private = folder / f".weights.{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / COMMITTED).unlink(missing_ok=True)
        save_file(weights, private)
        sync(private)
        private.replace(path)
        sync(folder)
        listing = {"files": [entry(folder, path)], "meaning": training.meaning, "facts": facts}
        _publish(folder / COMMITTED, {**listing, "digest": digest(listing)})
        sync(training.path)
    except OSError as error:
        storage_full(error, folder)
    return path


def is_finished(training: Training) -> bool:
    """Return whether the final weights are committed and complete. Damaged ones count as not finished, with a warning.

    Raises:
        StorageError: they belong to a training with other settings.

    """
    folder = training.path / "final"
    if not (folder / COMMITTED).exists():
        return False
    listing = read_listing(folder)
    problem = listing.problem or listing.damaged()
    if problem is not None:
        _log.warning("final weights are made again from the last checkpoint: %s", problem)
        return False
    if listing.content["meaning"] not in map(training.meaning_at, (0, 1, 2, 3)):
        raise _of_other_settings(folder)
    return True


def final_weights(training: Training) -> Path:
    """Verify the averaged weights and return the path of their safetensors file, which is keyed by parameter name.

    Raises:
        StorageError: the training is not finished.

    """
    if not is_finished(training):
        raise StorageError(
            f"{training.path / 'final'} has no complete weights; checkpoints are safe; run the same command again"
        )
    return training.path / "final" / "weights.safetensors"


def final_facts(training: Training) -> dict[str, Any]:
    """Return the facts that `finish` stored with the final weights: steps, skipped steps and metrics on val."""
    final_weights(training)
    return read_listing(training.path / "final").content["facts"]


def _of_other_settings(folder: Path) -> StorageError:
    return StorageError(
        f"{folder} belongs to a training with other settings; it was not modified; use another folder"
    )


def _write(write: Callable[[Path], None], folder: Path) -> None:
    try:
        write(folder)
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "No space left" not in str(error):
            raise
        raise StorageError(
            f"{folder}: a checkpoint could not be written ({str(error).splitlines()[0][:120]}); earlier checkpoints are safe; "
            "make room, then run the same command"
        ) from error


def _committed(folder: Path) -> list[Path]:
    """Return the committed checkpoints, newest step first."""
    if not folder.is_dir():
        return []
    committed = [
        path for path in folder.iterdir() if _FOLDER.fullmatch(path.name) and (path / COMMITTED).exists()
    ]
    return sorted(committed, key=lambda path: (-_step(path), path.name))


def _step(path: Path) -> int:
    return int(path.name.partition(".")[0].removeprefix("step-"))


def _first(problems: list[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def _owner(path: Path) -> int:
    """Return the rank that wrote a file: DeepSpeed puts the rank into the name of a shard; rank 0 writes the other files."""
    match = _OWNED.search(path.name)
    return int(match.group(1)) if match else 0


def _publish(path: Path, listing: Mapping[str, object]) -> None:
    """Publish a listing if there is none yet.

    The temporary file is written next to the folder: inside the folder, a process killed after the link would leave a file that is not listed.
    """
    private = path.parent.parent / f".listing.{uuid.uuid4().hex}.json"
    if not publish(path, json.dumps(listing, sort_keys=True).encode(), private):
        raise FileExistsError(f"{path} already exists")
