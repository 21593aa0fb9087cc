"""A folder held by one process; the kernel lets go when the process ends, however it ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from corgi.settings.errors import ClusterError
from corgi.tables.store import storage_full


@contextmanager
def held(folder: Path, what: str | None = None) -> Iterator[None]:
    """Hold a folder alone; `what` says what is held, by default the run of the folder's name.

    Raises:
        ClusterError: another process holds it; the line names it.
        StorageError: the folder cannot be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        storage_full(error, folder)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"{what or f'run {folder.name}'} is held by {_holder(lock)}; it goes on undisturbed; wait for it or stop it"
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "what": what}))
        lock.flush()
        yield


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    try:
        facts = json.loads(lock.read())
    except ValueError:
        return "another process"
    told = f" ({facts['what']})" if facts.get("what") else ""
    return f"process {facts['pid']} on {facts['host']}{told}"
