"""Copies of an object store's files on this machine: a bounded folder, from which the least recently used ones go."""

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DISK_SHARE = 0.25
"""Share of the disk that copies may take."""
LEAST_AGE_S = 600.0
"""A copy that was used since is left alone: whoever asked for its path may not have opened it yet."""


def used(path: Path) -> None:
    """Note that a copy is used now."""
    with suppress(OSError):  # another process may have removed it; whoever opens it then asks again
        os.utime(path)


def bound(folder: Path, most_bytes: int | None = None) -> list[Path]:
    """Remove the copies that were not used for longest until the folder holds at most so many bytes; return them.

    The default is a quarter of the disk. Copies used in the last ten minutes stay, whatever they take.
    """
    most = int(shutil.disk_usage(folder).total * DISK_SHARE) if most_bytes is None else most_bytes
    copies = sorted(_copies(folder), key=lambda copy: copy[1].st_mtime)
    total, removed = sum(facts.st_size for _, facts in copies), []
    for path, facts in copies:
        if total <= most or facts.st_mtime > time.time() - LEAST_AGE_S:
            break
        path.unlink(missing_ok=True)
        total -= facts.st_size
        removed.append(path)
    return removed


def _copies(folder: Path) -> Iterable[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # removed meanwhile
            if path.is_file():
                yield path, path.stat()
