"""A folder is held by one process, and a file system that cannot hold one is said."""

import errno
import os
from pathlib import Path

import pytest

from corgi.flow.locks import held
from corgi.settings.errors import ClusterError, StorageError


def test_a_held_folder_names_its_holder(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(ClusterError, match=f"held by process {os.getpid()}"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refused)
    with (
        pytest.raises(StorageError, match=r"has no file locks.*nothing was changed.*flock") as found,
        held(tmp_path),
    ):
        pass
    assert "\n" not in str(found.value)
