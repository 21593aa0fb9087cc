"""Errors of a full or failing file store."""

import errno
from pathlib import Path
from typing import NoReturn

from corgi.settings.errors import StorageError
from corgi.storage.retries import is_passing


def storage_full(error: OSError, where: Path | str) -> NoReturn:
    """Raise a failed write as a one-line error.

    Raises:
        StorageError: always.

    """
    cause = (
        "no space is left"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else f"cannot write ({error.strerror or error})"
    )
    raise StorageError(
        f"{where}: {cause}; committed work is safe; make room or choose another root, then run the same command",
        may_pass=is_passing(error),
    ) from error
