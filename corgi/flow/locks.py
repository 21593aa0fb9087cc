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
    """Lock a folder; `what` describes it in messages, by default as the run with the folder's name.

    Raises:
        ClusterError: another process has locked it; the message names that process.
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
                f"{what or f'run {folder.name}'} is held by {_holder(lock)}; that process was not affected; wait for it or stop it"
            ) from None
        except OSError as error:
            raise StorageError(
                f"the file system of {folder} has no file locks ({error.strerror}): two commands could write there at once; nothing was changed; "
                "mount it with flock (Lustre: -o flock), or set scratch to a folder on another file system"
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "what": what}))
        lock.flush()
        yield


def _holder(lock: TextIO) -> str:
    """Return the lock's owner, after a short wait if it has only just taken the lock and has not written its name yet."""
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
