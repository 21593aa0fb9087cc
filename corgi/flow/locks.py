"""A folder locked by one process; the kernel releases the lock when the process ends in any way."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from corgi.settings.errors import ClusterError, StorageError
from corgi.storage.errors import storage_full

_NAME_TRIES, _NAME_WAIT_S = 20, 0.05


@contextmanager
def held(folder: Path, what: str | None = None) -> Generator[None]:
    """Lock a folder; `what` describes it for messages, by default as the run of the folder's name.

    Raises:
        ClusterError: another process has locked it; the line names that process.
        StorageError: the folder cannot be written, or its file system has no locks.

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
        except OSError as error:
            raise StorageError(
                f"the file system of {folder} has no file locks ({error.strerror}): two commands could write there at once; nothing was changed; "
                "mount it with flock (Lustre: -o flock), or set scratch to a folder on another one"
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "what": what}))
        lock.flush()
        yield


def _holder(lock: TextIO) -> str:
    """Return the lock's owner; one that has only just taken the lock is given a moment to write its name."""
    for _ in range(_NAME_TRIES):
        lock.seek(0)
        try:
            facts = json.loads(lock.read())
        except ValueError:
            time.sleep(_NAME_WAIT_S)
            continue
        told = f" ({facts['what']})" if facts.get("what") else ""
        return f"process {facts['pid']} on {facts['host']}{told}"
    return "another process"
