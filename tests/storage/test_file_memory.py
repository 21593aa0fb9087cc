"""A large file is hashed once while size and times are the same, over commands too; another file never takes its place."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from corgi.storage import file_memory, paths
from corgi.storage.file_memory import MIN_BYTES
from corgi.storage.paths import sha256_of


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    file_memory.forget()
    yield
    file_memory.forget()


def next_command(told: str) -> None:
    """Be as a process that has read run.json."""
    file_memory.forget()
    file_memory.take_over(json.loads(told))


def large(path: Path, letter: bytes) -> str:
    path.write_bytes(letter * MIN_BYTES)
    return hashlib.sha256(letter * MIN_BYTES).hexdigest()


def test_a_list_that_a_command_has_hashed_is_not_read_by_the_next(tmp_path, monkeypatch):
    digest = large(tmp_path / "list", b"a")
    assert sha256_of(str(tmp_path / "list")) == digest
    next_command(json.dumps(file_memory.told()))
    monkeypatch.setattr(paths.hashlib, "sha256", lambda: pytest.fail("it is read a second time"))
    assert sha256_of(str(tmp_path / "list")) == digest


@pytest.mark.law
@pytest.mark.parametrize("how", ["rewritten", "replaced", "touched"])
def test_a_file_that_may_have_changed_is_hashed_again(tmp_path, how):
    path = tmp_path / "list"
    large(path, b"a")
    sha256_of(str(path))
    told = json.dumps(file_memory.told())
    if how == "replaced":
        other = tmp_path / "other"
        expected = large(other, b"b")
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        other.replace(path)
    else:
        expected = large(path, b"b" if how == "rewritten" else b"a")
    next_command(told)
    assert sha256_of(str(path)) == expected
    assert len(file_memory.told()) == 1  # what was known of the former content is gone


def test_small_files_are_not_kept(tmp_path):
    (tmp_path / "small").write_bytes(b"a")
    sha256_of(str(tmp_path / "small"))
    assert file_memory.told() == {}
