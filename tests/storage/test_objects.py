"""Object stores: the same promises as a disk, by conditional put; what lacks it is refused in one line."""

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pytest
from obstore.store import MemoryStore

from corgi.settings.errors import InputError, StorageError
from corgi.storage.disk import Disk
from corgi.storage.objects import ObjectStorage
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.store import ShardTask, Store
from tests.support import commit_script
from tests.support.commit_script import KEY, STAGE, commit, task
from tests.support.s3_server import BUCKET, s3_server
from tests.support.waiting import PATIENCE_S

URL = f"s3://{BUCKET}/runs"
NUM_RACES = 50


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """Lead this process to a real S3 server on loopback."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def store_of(objects: Any, tmp_path: Path) -> Store:
    """Return a store over an obstore store given."""
    return Store(URL, storage=ObjectStorage(f"{URL}/store", tmp_path, objects))


def test_a_stage_on_s3_is_that_of_a_disk(s3, tmp_path):
    Store(URL).storage.check()
    commit_script.main(URL)
    commit_script.main(str(tmp_path))
    assert commit_script.content(URL) == commit_script.content(tmp_path)
    before = sorted(Store(URL).storage.walk(""))
    commit_script.main(URL)
    assert sorted(Store(URL).storage.walk("")) == before


def test_law_ranges_of_a_folder_hold_every_file_once_on_s3_and_on_a_disk(s3, tmp_path):
    names = ["0", "00", "1/a", "1-x/b", "1a/b", "closed/x/y", "f/g", "~"]
    on_s3, disk = ObjectStorage(f"s3://{BUCKET}/ranges", tmp_path / "scratch"), Disk(tmp_path)
    for storage in (on_s3, disk):
        for name in names:
            storage.make(f"stage/{name}".rpartition("/")[0])
            storage.put_if_absent(f"stage/{name}", name.encode())
        storage.make("stages")
        storage.put_if_absent("stages/other", b"of another folder")
    whole = sorted(disk.walk("stage"))
    assert [name for name, _ in whole] == sorted(f"stage/{name}" for name in names)
    for cuts in (["1"], ["1-x"], ["00", "1a", "d"], ["~"], ["closed", "zz"]):
        ranges = list(pairwise(["", *cuts, ""]))
        for storage in (on_s3, disk):
            parts = [sorted(storage.walk("stage", *one)) for one in ranges]
            assert sorted(entry for part in parts for entry in part) == whole


def test_a_run_on_s3_is_recorded_and_opened_by_its_url(s3, tmp_path):
    root = f"s3://{BUCKET}/other"
    commit_script.main(root)
    store = Store(root)
    closed = store.stage(STAGE, KEY)
    assert closed is not None
    made = Run(f"{root}/one", store, tmp_path)
    made.record(STAGE, closed)
    made.publish("samples/grid.png", b"png")
    opened = Run.open(f"{root}/one")
    assert [m.shard for m in opened.shards(STAGE)] == [f"{n:05d}" for n in range(6)]
    assert opened.published("samples/grid.png") == f"{root}/one/samples/grid.png"
    assert opened.published("report.html") is None
    with pytest.raises(InputError, match="holds no run"):
        Run.open(f"{root}/two")


def test_many_shards_are_recognised_by_one_listing(s3):
    commit_script.main(URL)
    keys = [f"{n:032x}" for n in range(100)]
    found = Store(URL).committed(STAGE, keys)
    assert found == {f"{n:032x}": f"{STAGE}/{n:032x}/manifest-0.json" for n in range(6)}


def test_a_range_of_an_object_is_read(tmp_path):
    storage = store_of(MemoryStore(), tmp_path).storage
    assert storage.put_if_absent("pack/a", b"0123456789")
    assert [storage.read_range("pack/a", *span) for span in ((0, 3), (4, 6))] == [b"012", b"456789"]
    with pytest.raises(FileNotFoundError):
        storage.read_range("pack/b", 0, 1)


def test_a_bucket_that_is_not_there_is_one_line(s3):
    with pytest.raises(StorageError, match="nothing was started") as found:
        Store("s3://nobody/runs").storage.check()
    assert "\n" not in str(found.value)


def test_a_scheme_nobody_knows_is_one_line():
    with pytest.raises(StorageError, match="cannot be opened") as found:
        Store("zz://bucket/runs")
    assert "\n" not in str(found.value)


class Forgetful(MemoryStore):
    """A backend that overwrites whatever it is told."""

    def put(self, path: str, file: Any, **how: Any) -> Any:
        return obstore.put(self, path, file)


class Incapable(MemoryStore):
    """A backend that does not know conditional put."""

    def put(self, path: str, file: Any, **how: Any) -> Any:
        if how.get("mode") == "create":
            raise obstore.exceptions.NotSupportedError(
                "Operation not supported: If-None-Match\n\nDebug source:\nX"
            )
        return obstore.put(self, path, file)


class Whole(MemoryStore):
    """A backend that returns the whole object, whatever part it is asked for."""

    def get_range(self, path: str, **span: Any) -> Any:
        return obstore.get(self, path).bytes()


class Rangeless(MemoryStore):
    """A backend whose answer is not that of a range, which obstore refuses."""

    def get_range(self, path: str, **span: Any) -> Any:
        raise obstore.exceptions.GenericError(
            "Received non-partial response when range requested\n\nDebug source:\nX"
        )


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (Forgetful, "does not support conditional put"),
        (Incapable, "not supported"),
        (Whole, "does not support ranged reads"),
        (Rangeless, "does not support ranged reads"),
    ],
)
def test_a_backend_without_conditional_put_or_ranged_reads_is_one_line(tmp_path, backend, said):
    with pytest.raises(StorageError, match=said) as found:
        store_of(backend(), tmp_path).storage.check()
    assert "\n" not in str(found.value)
    assert "nothing was started" in str(found.value)


class Racing(MemoryStore):
    """A backend where somebody else always publishes just before us."""

    rivals = 0

    def put(self, path: str, file: Any, **how: Any) -> Any:
        if how.get("mode") == "create" and self.rivals:
            self.rivals -= 1
            obstore.put(self, path, b"a rival's manifest")
        return obstore.put(self, path, file, **how)


def test_a_lost_race_takes_the_next_number_and_overwrites_nothing(tmp_path, promise):
    for rivals in range(NUM_RACES):
        backend = Racing()
        backend.rivals = rivals % 5
        store = store_of(backend, tmp_path)
        one = task(URL, 1)
        commit(store, one)
        names = sorted(store.storage.names(one.folder))
        ours = [name for name in names if name.startswith("manifest-")]
        assert len(ours) == rivals % 5 + 1
        for name in ours[:-1]:
            assert store.storage.read(f"{one.folder}/{name}") == b"a rival's manifest"
        assert store.shard(STAGE, one.key) is not None
    promise(
        5,
        f"object store, a rival before us: {NUM_RACES} of {NUM_RACES} races end under a number of their own",
    )


def test_threads_that_race_take_numbers_of_their_own(tmp_path):
    store, barrier = store_of(MemoryStore(), tmp_path), threading.Barrier(8)

    def publish(number: int) -> None:
        with store.attempt(task(URL, 1)) as attempt:
            attempt.write_bytes("note", ".txt", str(number).encode())
            barrier.wait(timeout=PATIENCE_S)
            attempt.commit(RowCounts(rows_in=1, kept=1))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    folder = task(URL, 1).folder
    manifests = [name for name in store.storage.names(folder) if name.startswith("manifest-")]
    assert sorted(manifests) == [f"manifest-{n}.json" for n in range(8)]
    notes = {store.path(store.read_shard(f"{folder}/{name}"), "note").read_text() for name in manifests}
    assert notes == {str(number) for number in range(8)}


class AnswerLost(MemoryStore):
    """A backend whose answer to a conditional put is lost, so that its client's own retry finds the name taken."""

    def put(self, path: str, file: Any, **how: Any) -> Any:
        obstore.put(self, path, file, **how)
        return obstore.put(self, path, file, **how)


def test_an_answer_lost_on_the_way_is_our_own_commit(tmp_path):
    store, one = store_of(AnswerLost(), tmp_path), task(URL, 1)
    with store.attempt(one) as attempt:
        attempt.commit(RowCounts(rows_in=0, kept=0))
    assert [n for n in store.storage.names(one.folder) if "manifest" in n] == ["manifest-0.json"]


def test_an_attempt_that_raises_leaves_no_object(tmp_path):
    store, one = store_of(MemoryStore(), tmp_path), task(URL, 1)

    def fail() -> None:
        with store.attempt(one) as attempt:
            attempt.write_table("rows", commit_script.table(1))
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    assert list(store.storage.walk("")) == []


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_object_is_found_and_named(tmp_path, how):
    store, one = store_of(MemoryStore(), tmp_path), task(URL, 1)
    commit(store, one)
    manifest = store.shard(STAGE, one.key)
    assert manifest is not None
    name = store.file_name(manifest, store.entry(manifest, "rows"))
    data = bytearray(store.storage.read(name))
    store.storage.remove(name)
    data[7] ^= 1
    if how != "remove":
        store.storage.replace(name, bytes(data if how == "flip" else data[:-1]))
    with pytest.raises(StorageError) as found:
        store.read(manifest, "rows")
    assert f"{URL}/store/{name}" in str(found.value)
    assert "\n" not in str(found.value)
    assert len(store.verify(manifest)) == 1


def test_a_copy_kept_on_this_machine_is_checked_before_it_is_used(tmp_path):
    store, one = store_of(MemoryStore(), tmp_path), task(URL, 1)
    commit(store, one)
    manifest = store.shard(STAGE, one.key)
    assert manifest is not None
    path = store.path(manifest, "note")
    path.write_bytes(b"damaged meanwhile")
    assert store.path(manifest, "note").read_text() == '{"shard": 1}\n'


def test_a_table_is_read_by_one_request_whatever_is_wrong_with_it(tmp_path, monkeypatch):
    """Its size is that of the answer; nothing is asked for beforehand."""
    store = store_of(MemoryStore(), tmp_path)
    table = pa.table({"n": [1, 2, 3]})
    with store.attempt(ShardTask(store.location, STAGE, "00000", "k", 1, "c", {})) as attempt:
        attempt.write_table("rows", table)
        manifest = attempt.commit(RowCounts(rows_in=3, kept=3))
    monkeypatch.setattr(store.storage, "size", lambda name: pytest.fail(f"the size of {name} was asked for"))
    assert store.read(manifest, "rows").equals(table)
    assert store.read(manifest, "rows", ["n"]).equals(table)
    name = store.file_name(manifest, manifest.files[0])
    data = store.storage.read(name)
    store.storage.replace(name, data[:-1])
    with pytest.raises(StorageError, match=f"has {len(data) - 1} bytes, its manifest says {len(data)}"):
        store.read(manifest, "rows")
    store.storage.remove(name)
    with pytest.raises(StorageError, match="is listed but missing"):
        store.read(manifest, "rows")
