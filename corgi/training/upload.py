"""Copies of committed checkpoints in object storage, uploaded in the background, and fetched back if the folder has lost them.

A checkpoint's files are uploaded first and its COMMITTED.json last, so that a checkpoint that has one is complete.
"""

import logging
import queue
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from corgi.settings.errors import StorageError
from corgi.storage.files import sync
from corgi.storage.objects import opened
from corgi.training.listing import COMMITTED, files, read_listing
from corgi.training.training import Training

_NAME = re.compile(r"step-(\d{9,})\.[0-9a-f]+")
_ATTEMPTS = 3
_log = logging.getLogger(__name__)


class Remote(Protocol):
    """A prefix of an object store; names are relative to it."""

    def put(self, name: str, path: Path) -> None:
        """Store a file under a name."""
        ...

    def get(self, name: str, path: Path) -> None:
        """Write an object into a file."""
        ...

    def names(self) -> Iterator[str]:
        """Yield every name."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object."""
        ...


class ObjectStore:
    """A prefix of s3://, gs://, az:// or file:// through obstore; credentials come from the environment."""

    def __init__(self, url: str) -> None:
        """Open a URL.

        Raises:
            StorageError: it is not the URL of an object store.

        """
        try:
            self._store: Any = opened(url)
        except (ValueError, OSError) as error:
            raise StorageError(
                f"training.upload={url} cannot be opened ({' '.join(str(error).split())[:200]}); nothing was started; set it to s3://, gs://, az:// or file://"
            ) from error

    def put(self, name: str, path: Path) -> None:
        """Store a file under a name, as a multipart upload if it is large."""
        import obstore

        obstore.put(self._store, name, path)

    def get(self, name: str, path: Path) -> None:
        """Stream an object into a file."""
        import obstore

        with path.open("wb") as sink:
            for chunk in obstore.get(self._store, name).stream():
                sink.write(chunk)
        sync(path)

    def names(self) -> Iterator[str]:
        """Yield every name."""
        import obstore

        for part in obstore.list(self._store):
            yield from (str(entry["path"]) for entry in part)

    def delete(self, name: str) -> None:
        """Remove an object."""
        import obstore

        obstore.delete(self._store, name)


class Uploader:
    """Copies committed checkpoints in a thread. A failure is logged as a warning and never stops the training."""

    def __init__(self, remote: Remote, keep: int, timeout_s: float = 600.0) -> None:
        """Copy to `remote`, where `keep` checkpoints are kept; `close` waits at most `timeout_s`."""
        self.remote = remote
        self.keep = keep
        self.timeout_s = timeout_s
        self._waiting: queue.Queue[Path | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def put(self, folder: Path) -> None:
        """Queue a committed checkpoint for copying; return at once."""
        self._waiting.put(folder)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is left to copy; return whether that happened within `timeout_s`."""
        done = threading.Event()
        threading.Thread(target=lambda: (self._waiting.join(), done.set()), daemon=True).start()
        return done.wait(timeout_s)

    def close(self) -> None:
        """Copy the queued checkpoints and end the thread."""
        self._waiting.put(None)
        self._thread.join(self.timeout_s)
        if self._thread.is_alive():
            _log.warning(
                "checkpoints were still being uploaded after %.0f s; those on disk are complete",
                self.timeout_s,
            )

    def fetch_newer(self, folder: Path, step: int) -> None:
        """Fetch the newest copied checkpoint after a step, if any, into a folder, its listing last. It is verified when it is loaded."""
        copied = [name for name in self._copied() if _step(name) > step]
        for name in sorted(copied, key=_step, reverse=True)[:1]:
            target = folder / name
            shutil.rmtree(target, ignore_errors=True)
            paths = [path for path in self.remote.names() if path.startswith(f"{name}/")]
            for path in sorted(paths, key=lambda path: path.endswith(COMMITTED)):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                self.remote.get(path, folder / path)
            sync(target)
            _log.warning("checkpoint %s was fetched from object storage", name)

    def _run(self) -> None:
        while True:
            folder = self._waiting.get()
            try:
                if folder is None:
                    return
                self._copy_patiently(folder)
            finally:
                self._waiting.task_done()

    def _copy_patiently(self, folder: Path) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._copy(folder)
                self._prune()
            except Exception as error:  # no failure of the network may stop the training
                if attempt == _ATTEMPTS:
                    text = " ".join(str(error).split())[:200]
                    _log.warning(
                        "checkpoint %s was not uploaded: %s; the one on disk is complete", folder.name, text
                    )
            else:
                return

    def _copy(self, folder: Path) -> None:
        if read_listing(folder).problem is not None:  # pruned while it waited: a newer one is queued
            return
        for path in files(folder):
            self.remote.put(f"{folder.name}/{path.relative_to(folder)}", path)
        self.remote.put(f"{folder.name}/{COMMITTED}", folder / COMMITTED)

    def _prune(self) -> None:
        """Delete the oldest copies beyond `keep`, the listing of each first."""
        old = sorted(self._copied(), key=_step, reverse=True)[self.keep :]
        for name in old:
            paths = [path for path in self.remote.names() if path.startswith(f"{name}/")]
            for path in sorted(paths, key=lambda path: not path.endswith(COMMITTED)):
                self.remote.delete(path)

    def _copied(self) -> list[str]:
        """Return the checkpoints whose listing was uploaded."""
        names = (name.rpartition("/") for name in self.remote.names())
        return [folder for folder, _, name in names if name == COMMITTED and _NAME.fullmatch(folder)]


def uploader(training: Training) -> Uploader | None:
    """Return the uploader of a training's checkpoints; None unless its settings name a destination."""
    url = training.settings.upload.rstrip("/")
    if not url:
        return None
    remote: Any = ObjectStore(f"{url}/{training.remote_name}")
    return Uploader(remote, training.settings.keep_checkpoints)


def _step(name: str) -> int:
    return int(name.partition(".")[0].removeprefix("step-"))
