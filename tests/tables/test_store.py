"""The store: one manifest is the only door, put once, believed only when every byte agrees."""

import json
import multiprocessing
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from corgi.settings.errors import StorageError
from corgi.storage import files as storage_module
from corgi.storage.many import MOST_AT_ONCE
from corgi.tables.manifest import RowCounts, ShardEntry, ShardManifest, StageManifest
from corgi.tables.schema import Reason
from corgi.tables.store import Attempt, ShardTask, Store, write_file
from tests.support import commit_script
from tests.support.commit_script import STAGE, commit, task
from tests.support.programs import missing
from tests.support.table_digest import table_digest

NUM_RACES = 50


def committed(root: Path, shard: int = 1) -> tuple[Store, ShardManifest]:
    store = Store(root)
    commit(store, task(str(root), shard))
    manifest = store.shard(STAGE, task(str(root), shard).key)
    assert manifest is not None
    return store, manifest


def stage_of(*shards: ShardManifest) -> StageManifest:
    entries = tuple(ShardEntry(shard=m.shard, path=m.path, digest=m.digest) for m in shards)
    rows = sum((m.rows for m in shards), RowCounts(rows_in=0, kept=0))
    return StageManifest(
        stage=STAGE,
        key="k",
        version=1,
        code="c",
        commit=None,
        settings={},
        inputs={},
        shards=entries,
        rows=rows,
    )


def one_line(error: pytest.ExceptionInfo[StorageError], path: Path) -> None:
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    assert "safe" in line
    assert error.value.exit_code == 4


def try_to_commit(store: Store, one: ShardTask, work: Callable[[Attempt], None]) -> None:
    with store.attempt(one) as attempt:
        work(attempt)
        attempt.commit(RowCounts(rows_in=1, kept=1))


# commit


def test_a_commit_is_read_back_as_it_was_written(tmp_path):
    store, manifest = committed(tmp_path, 2)
    assert store.read(manifest, "rows").equals(commit_script.table(2))
    assert store.read(manifest, "rows", ["uid"]).column_names == ["uid"]
    assert json.loads(store.path(manifest, "note").read_text()) == {"shard": 2}
    assert manifest.rows == RowCounts(rows_in=6, kept=4, rejected={Reason.TIMEOUT: 2})
    assert store.read_shard(manifest.path) == manifest


def test_a_root_that_looks_like_a_partition_adds_no_column(tmp_path):
    store, manifest = committed(tmp_path / "day=3")
    assert store.read(manifest, "rows").column_names == ["uid", "vector"]


def test_nothing_of_an_uncommitted_attempt_is_seen(tmp_path):
    store, one = Store(tmp_path), task(str(tmp_path), 1)
    with store.attempt(one) as attempt:
        attempt.write_table("rows", commit_script.table(1))
        assert store.shard(STAGE, one.key) is None
    assert store.shard(STAGE, one.key) is None
    assert list(store.shard_folder(STAGE, one.key).iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(1)])
def test_an_attempt_that_raises_leaves_no_file(tmp_path, error):
    store, one = Store(tmp_path), task(str(tmp_path), 1)

    def fail(attempt: Attempt) -> None:
        attempt.write_table("rows", commit_script.table(1))
        raise error

    with pytest.raises(type(error)):
        try_to_commit(store, one, fail)
    assert list(store.shard_folder(STAGE, one.key).iterdir()) == []


def test_an_error_just_after_the_link_keeps_the_committed_files(tmp_path, monkeypatch):
    """The manifest is out, so its files must stay, whatever is raised next."""
    store, one, link = Store(tmp_path), task(str(tmp_path), 1), os.link

    def link_and_interrupt(source, target):
        link(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage_module.os, "link", link_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        commit(store, one)
    manifest = store.shard(STAGE, one.key)
    assert manifest is not None
    assert store.read(manifest, "rows").num_rows == 4


def test_digests_do_not_depend_on_attempt_names(tmp_path):
    (_, first), (_, second) = committed(tmp_path / "a"), committed(tmp_path / "b")
    assert {f.name for f in first.files} & {f.name for f in second.files} == set()
    assert first.digest == second.digest
    assert stage_of(first).digest == stage_of(second).digest
    assert committed(tmp_path / "a", 2)[1].digest != first.digest


def test_the_highest_generation_counts(tmp_path):
    store, first = committed(tmp_path)
    commit(store, task(str(tmp_path), 1))
    second = store.shard(STAGE, first.key)
    assert second is not None
    assert [Path(m.path).name for m in (first, second)] == ["manifest-0.json", "manifest-1.json"]
    assert store.read(first, "rows").equals(store.read(second, "rows"))
    for number in range(2, 12):
        commit(store, task(str(tmp_path), 1))
        newest = store.shard(STAGE, first.key)
        assert newest is not None
        assert Path(newest.path).name == f"manifest-{number}.json"


def test_two_processes_never_take_the_same_number(tmp_path, promise):
    spawned = multiprocessing.get_context("spawn")
    barrier = spawned.Barrier(2)
    racers = [
        spawned.Process(target=commit_script.race, args=(str(tmp_path), barrier, NUM_RACES)) for _ in range(2)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    store = Store(tmp_path)
    for number in range(NUM_RACES):
        folder = store.shard_folder(STAGE, f"{number:032x}")
        manifests = sorted(path.name for path in folder.glob("manifest-*"))
        assert manifests == ["manifest-0.json", "manifest-1.json"]
        read = [store.read_shard(str((folder / name).relative_to(store.root))) for name in manifests]
        assert len({store.path(manifest, "note").read_text() for manifest in read}) == 2
        assert not list(folder.glob(".*"))
    promise(5, f"disk: {NUM_RACES} of {NUM_RACES} races end under two numbers")


def test_a_taken_number_is_never_overwritten(tmp_path):
    store, manifest = committed(tmp_path)
    before = (store.root / manifest.path).read_bytes()
    for _ in range(3):
        commit(store, task(str(tmp_path), 1))
    assert (store.root / manifest.path).read_bytes() == before


def test_a_reader_never_sees_half_a_commit(tmp_path, promise):
    """A reader polls while another process commits, again and again."""
    writer = multiprocessing.get_context("spawn").Process(
        target=commit_script.repeat, args=(str(tmp_path), 6)
    )
    writer.start()
    polls = whole = 0
    while writer.is_alive() or polls < 1000:
        store = Store(tmp_path / str(polls % 6))
        found = store.shard(STAGE, task("", polls // 6 % 6).key)
        if found is not None:
            assert store.read(found, "rows").num_rows == 4
            whole += 1
        polls += 1
    writer.join(30)
    assert writer.exitcode == 0
    assert whole > 0
    promise(2, f"0 partial reads in {min(polls, 1000):,} polls and more")


# damage


def damage(path: Path, how: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        place = rng.randrange(len(data) * 8)
        data[place // 8] ^= 1 << place % 8
    elif how == "cut":
        del data[rng.randrange(len(data)) :]
    path.unlink()
    if how != "remove":
        path.write_bytes(data)


@pytest.mark.parametrize("table", ["rows", "note", "bytes"])
@pytest.mark.parametrize(("how", "trials"), [("flip", 40), ("cut", 20), ("empty", 1), ("remove", 1)])
def test_a_damaged_file_is_found_and_named(tmp_path, table, how, trials, promise):
    store, one = Store(tmp_path), task(str(tmp_path), 1)
    with store.attempt(one) as attempt:
        attempt.write_table("rows", commit_script.table(1))
        attempt.write_bytes("note", ".json", b'{"shard": 1}\n')
        attempt.write_bytes("bytes", ".safetensors", bytes(range(256)))
        manifest = attempt.commit(RowCounts(rows_in=1, kept=1))
    path = store.path(manifest, table)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(trials):
        path.write_bytes(b"") if how == "empty" else damage(path, how, rng)
        with pytest.raises(StorageError) as found:
            store.read(manifest, "rows") if table == "rows" else store.path(manifest, table)
        one_line(found, path)
        if how in ("cut", "empty"):
            assert f"its manifest says {len(whole)}" in str(found.value)
        path.write_bytes(whole)
    assert store.path(manifest, table) == path
    if how in ("flip", "cut"):
        promise(7 if how == "flip" else 8, f"sample, {table}: {trials} of {trials} found and named")


@pytest.mark.parametrize(("how", "trials"), [("flip", 100), ("cut", 30)])
def test_a_damaged_manifest_is_never_believed(tmp_path, how, trials):
    store, manifest = committed(tmp_path)
    closed = store.close(stage_of(manifest))
    rng = random.Random(1)
    for placed, read in (
        (manifest, lambda: store.shard(STAGE, manifest.key)),
        (closed, lambda: store.stage(STAGE, "k")),
    ):
        path = store.root / placed.path
        whole = path.read_bytes()
        for _ in range(trials):
            damage(path, how, rng)
            if json_or_none(path) != json.loads(whole):
                with pytest.raises(StorageError) as found:
                    read()
                one_line(found, path)
            path.write_bytes(whole)
        assert read() == placed


def json_or_none(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def test_a_shard_swapped_under_its_stage_is_found(tmp_path):
    store, first = committed(tmp_path, 1)
    _, second = committed(tmp_path, 2)
    closed = store.close(stage_of(first, second))
    assert store.shards(closed) == [first, second]
    (store.root / first.path).write_bytes((store.root / second.path).read_bytes())
    with pytest.raises(StorageError) as found:
        store.shards(closed)
    one_line(found, store.root / first.path)


def test_a_missing_shard_manifest_is_named(tmp_path):
    store, manifest = committed(tmp_path)
    closed = store.close(stage_of(manifest))
    (store.root / manifest.path).unlink()
    with pytest.raises(StorageError) as found:
        store.shards(closed)
    one_line(found, store.root / manifest.path)


def test_a_table_that_is_not_listed_is_refused(tmp_path):
    store, manifest = committed(tmp_path)
    with pytest.raises(StorageError, match="lists 0 files for pictures"):
        store.read(manifest, "pictures")


# rows


def test_rows_that_are_not_conserved_are_refused(promise):
    with pytest.raises(ValueError, match="not conserved"):
        RowCounts(rows_in=5, kept=3, rejected={Reason.TIMEOUT: 1})
    with pytest.raises(ValueError, match="unknown"):
        RowCounts.model_validate({"rows_in": 1, "kept": 0, "rejected": {"unknown": 1}})
    rng = random.Random(0)
    for _ in range(1000):
        rows, kept, late = (rng.randrange(5) for _ in range(3))
        rejected = {Reason.TIMEOUT: late} if late else {}
        if rows == kept + late:
            RowCounts(rows_in=rows, kept=kept, rejected=rejected)
        else:
            with pytest.raises(ValueError, match="not conserved"):
                RowCounts(rows_in=rows, kept=kept, rejected=rejected)
    promise(10, "1,000 of 1,000 drawn counts judged rightly before a commit; no reason unknown exists")


def test_a_commit_of_rows_that_are_not_conserved_leaves_nothing(tmp_path):
    store, one = Store(tmp_path), task(str(tmp_path), 1)

    def lose(attempt: Attempt) -> None:
        attempt.write_table("rows", commit_script.table(1))
        attempt.commit(RowCounts(rows_in=4, kept=3))

    with pytest.raises(ValueError, match="not conserved"):
        try_to_commit(store, one, lose)
    assert store.shard(STAGE, one.key) is None
    assert list(store.shard_folder(STAGE, one.key).iterdir()) == []


def test_counts_add_up():
    a = RowCounts(rows_in=3, kept=1, rejected={Reason.TIMEOUT: 2})
    b = RowCounts(rows_in=2, kept=0, rejected={Reason.TIMEOUT: 1, Reason.DNS: 1})
    assert a + b == RowCounts(rows_in=5, kept=1, rejected={Reason.DNS: 1, Reason.TIMEOUT: 3})


def test_a_table_digest_sees_rows_not_their_order():
    table = commit_script.table(1)
    assert table_digest(table) == table_digest(table.take([3, 1, 0, 2]).select(["vector", "uid"]))
    assert table_digest(table) != table_digest(table.slice(0, 3))
    assert table_digest(table) != table_digest(pa.concat_tables([table, table.slice(0, 1)]))


# a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        missing(f"mount is not permitted: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True, capture_output=True)


def test_a_full_disk_is_one_line_and_no_manifest(small_disk):
    store, kept = committed(small_disk, 1)
    one, noise = task(str(small_disk), 2), random.Random(0).randbytes(3 * 2**20)
    big_table = pa.table({"image": pa.array([noise])})
    for write in (
        lambda attempt: attempt.write_bytes("note", ".bin", noise),
        lambda attempt: attempt.write_table("rows", big_table),
    ):
        with pytest.raises(StorageError, match="no space is left") as found:
            try_to_commit(store, one, write)
        one_line(found, store.shard_folder(STAGE, one.key))
        assert store.shard(STAGE, one.key) is None
        assert list(store.shard_folder(STAGE, one.key).iterdir()) == []
    assert store.read(kept, "rows").num_rows == 4
    commit(store, one)
    assert store.shard(STAGE, one.key) is not None


def test_no_room_for_the_manifest_alone_is_the_same(small_disk):
    store, one = Store(small_disk), task(str(small_disk), 2)

    def fill(attempt: Attempt) -> None:
        attempt.write_bytes("note", ".txt", b"small")
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "ballast").write_bytes(bytes(2 * 2**20))

    with pytest.raises(StorageError, match="no space is left"):
        try_to_commit(store, one, fill)
    assert store.shard(STAGE, one.key) is None
    assert list(store.shard_folder(STAGE, one.key).iterdir()) == []
    (small_disk / "ballast").unlink()
    commit(store, one)
    assert store.shard(STAGE, one.key) is not None


def test_a_full_disk_leaves_a_run_file_as_it_was(small_disk):
    path = small_disk / "run.json"
    write_file(path, b"{}\n")
    with pytest.raises(StorageError, match="no space is left"):
        write_file(path, bytes(2 * 2**20))
    assert path.read_bytes() == b"{}\n"
    assert [found.name for found in small_disk.iterdir()] == ["run.json"]


def test_a_root_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as found:
        commit(Store(tmp_path / "file"), task(str(tmp_path / "file"), 1))
    assert "cannot write" in str(found.value)


def test_law_small_reads_of_an_object_store_are_under_way_together_and_come_in_order(tmp_path, monkeypatch):
    store, at_once, most = Store(tmp_path), [0], [0]
    lock = threading.Lock()

    def read(number: int) -> int:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.002)
        with lock:
            at_once[0] -= 1
        return 2 * number

    assert list(store.each_of(range(10), read)) == [2 * number for number in range(10)]
    assert most == [1]
    monkeypatch.setattr(store, "location", "s3://bucket/runs")
    assert list(store.each_of(range(2_000), read)) == [2 * number for number in range(2_000)]
    assert 1 < most[0] <= MOST_AT_ONCE
