"""Copies of an object store's files on this machine, in a folder of bounded size; the least recently used ones are removed first."""

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DISK_SHARE = 0.25
"""Share of the disk that copies may take."""
LEAST_AGE_S = 600.0
"""A copy used more recently than this is kept, s: a caller that got its path may not have opened it yet."""


def used(path: Path) -> None:
    """Record that a copy is used now."""
    with suppress(
        OSError
    ):  # another process may have removed it; a caller that fails to open it requests it again
        os.utime(path)


def bound(folder: Path, most_bytes: int | None = None) -> list[Path]:
    """Remove the least recently used copies until the folder has at most `most_bytes` bytes; return the removed ones.

    The default is a quarter of the disk. Copies used in the last ten minutes are kept, whatever their size.
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
