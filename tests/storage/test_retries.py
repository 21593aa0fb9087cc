"""Errors of a network or a server pass: reads are repeated. Errors of the request are raised at once."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore

from corgi.settings.errors import StorageError
from corgi.storage import retries
from corgi.storage.disk import Disk
from corgi.storage.errors import storage_full
from corgi.storage.objects import ObjectStorage
from corgi.storage.retries import ATTEMPTS, FIRST_WAIT_S, PASSING, is_passing, patient
from corgi.storage.storage import Storage
from corgi.tables.store import Store
from tests.support.commit_script import STAGE, commit, task

READS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read("a/b"),
    "measure": lambda storage: storage.measure("a/b"),
    "size": lambda storage: storage.size("a/b"),
    "names": lambda storage: storage.names("a"),
    "folders": lambda storage: storage.folders(""),
}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take the waits' lengths, and their place."""
    waited: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", waited.append)
    return waited


def failing(code: int, times: int, calls: list[int]) -> Callable[[], str]:
    def call() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise OSError(code, os.strerror(code))
        return "bytes"

    return call


@pytest.mark.law
@pytest.mark.parametrize("code", sorted(PASSING))
def test_an_error_that_may_pass_is_met_again_after_growing_waits(code: int, waits: list[float]) -> None:
    calls: list[int] = []
    assert patient(failing(code, ATTEMPTS - 1, calls))() == "bytes"
    assert len(calls) == ATTEMPTS
    for attempt, wait in enumerate(waits):
        assert 0.5 <= wait / (FIRST_WAIT_S * 2**attempt) <= 1.5
    calls.clear()
    with pytest.raises(OSError, match=os.strerror(code)):
        patient(failing(code, ATTEMPTS, calls))()
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EISDIR])
def test_an_error_of_the_request_is_raised_at_once(code: int) -> None:
    calls: list[int] = []
    with pytest.raises(OSError, match=os.strerror(code)):
        patient(failing(code, 1, calls))()
    assert len(calls) == 1


def test_what_took_a_minute_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-out of one request is a minute where obstore has repeated it by itself."""
    clock = iter([0.0, 61.0])
    monkeypatch.setattr(retries.time, "monotonic", lambda: next(clock))
    calls: list[int] = []
    with pytest.raises(OSError, match="timed out"):
        patient(failing(errno.ETIMEDOUT, 1, calls))()
    assert len(calls) == 1


class Faults:
    """Raises twice per request, then lets it through."""

    def __init__(self, error: Exception) -> None:
        self.error, self.left = error, 2

    def over(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*arguments: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self.error
            return call(*arguments, **named)

        return faulty


@pytest.mark.parametrize("name", READS)
def test_every_read_of_a_disk_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x")
    expected = READS[name](Disk(tmp_path))
    faults = Faults(OSError(errno.ESTALE, "Stale file handle"))
    for place, attribute in ((os, "listdir"), (os, "scandir"), (Path, "open"), (Path, "stat")):
        monkeypatch.setattr(place, attribute, faults.over(getattr(place, attribute)))
    found = READS[name](Disk(tmp_path))
    assert (found, faults.left) == (expected, 0)


@pytest.mark.parametrize("name", READS)
def test_every_read_of_an_object_store_is_repeated(tmp_path: Path, name: str) -> None:
    objects = MemoryStore()
    objects.put("a/b", b"x")
    expected = READS[name](ObjectStorage("s3://bucket", tmp_path, objects))
    faults = Faults(GenericError("Generic S3 error: Error performing GET\n\nDebug source:\nX"))

    class Flaky:
        def __getattr__(self, attribute: str) -> Any:
            return faults.over(getattr(objects, attribute))

    flaky: Any = Flaky()
    found = READS[name](ObjectStorage("s3://bucket", tmp_path, flaky))
    assert (found, faults.left) == (expected, 0)


def test_a_refused_key_is_no_passing_error(tmp_path: Path) -> None:
    class Closed:
        def get(self, name: str) -> Any:
            raise PermissionDeniedError("The operation lacked the necessary privileges")

    closed: Any = Closed()
    with pytest.raises(PermissionError) as found:
        ObjectStorage("s3://bucket", tmp_path, closed).read("a")
    assert not is_passing(found.value)


@pytest.mark.parametrize(("code", "may_pass"), [(errno.ESTALE, True), (errno.ENOSPC, False)])
def test_the_line_says_to_the_program_whether_the_error_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, may_pass: bool
) -> None:
    error = OSError(code, os.strerror(code))
    with pytest.raises(StorageError) as found:
        storage_full(error, tmp_path)
    assert found.value.may_pass == may_pass
    store, one = Store(tmp_path), task(str(tmp_path), 1)
    commit(store, one)
    manifest = store.shard(STAGE, one.key)
    assert manifest is not None

    def refuse(path: Path) -> str:
        raise error

    monkeypatch.setattr("corgi.tables.store.sha256_of_file", refuse)
    with pytest.raises(StorageError, match="cannot be read") as found:
        store.path(manifest, "note")
    assert found.value.may_pass == may_pass
