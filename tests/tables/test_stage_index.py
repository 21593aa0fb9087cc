"""A stage's index says what its shards' manifests say, and a reader opens none of them."""

import random
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.settings.errors import StorageError
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from corgi.tables.stage_index import ListedShard, index_name, read_buffer
from corgi.tables.store import Store
from tests.support.tables import tiny_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return tiny_run(tmp_path)


def place(run: Run, stage: str) -> Path:
    name = index_name(run.stages()[stage])
    assert name is not None
    return run.store.root / name


@pytest.mark.law
@pytest.mark.parametrize("stage", ["plan", "download", "embed", "curate"])
def test_the_index_says_what_the_manifests_say(run: Run, stage: str) -> None:
    listed = run.store.listed(run.stages()[stage])
    assert listed == [ListedShard.of(manifest) for manifest in run.shards(stage)]
    assert sum((shard.rows.rejected.get(Reason.EXACT_DUPLICATE, 0) for shard in listed), 0) == (
        stage == "curate"
    )


def test_a_reader_opens_no_manifest_of_a_shard(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = run.stages()["embed"]
    tables = [run.store.read(shard, "image_embeddings") for shard in run.shards("embed")]

    def opened(store: Store, path: str) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(Store, "read_shard", opened)
    listed = run.store.listed(manifest)
    assert [run.store.read(shard, "image_embeddings") for shard in listed] == tables


def test_a_stage_closed_without_an_index_is_read_by_its_manifests(run: Run) -> None:
    closed = run.stages()["embed"]
    before = run.store.close(closed.model_copy(update={"index": None, "key": "of 0.1"}))
    assert run.store.listed(before) == run.store.listed(closed)
    assert run.store.verify_index(before) == []


@pytest.mark.parametrize("how", ["flip", "cut", "missing", "other"])
def test_a_damaged_index_is_one_line_and_closing_again_mends_it(run: Run, how: str) -> None:
    path, manifest = place(run, "embed"), run.stages()["embed"]
    data = bytearray(path.read_bytes())
    data[random.Random(0).randrange(len(data))] ^= 1
    damaged = {"flip": bytes(data), "cut": bytes(data[:-9]), "other": place(run, "curate").read_bytes()}
    path.unlink()
    if how in damaged:
        path.write_bytes(damaged[how])
    with pytest.raises(StorageError) as found:
        run.store.listed(manifest)
    told = str(found.value)
    assert "\n" not in told
    assert str(path) in told
    assert f"remove {run.store.root / manifest.path} and run" in told
    assert run.store.verify_index(manifest) == [told.partition(";")[0]]
    again = run.store.indexed(manifest, [ListedShard.of(shard) for shard in run.shards("embed")])
    assert run.store.listed(run.store.close(again)) == [ListedShard.of(m) for m in run.shards("embed")]


def test_an_index_of_other_shards_is_not_believed(run: Run) -> None:
    manifest = run.stages()["embed"]
    fewer = run.store.indexed(manifest, run.store.listed(manifest)[:1])
    with pytest.raises(StorageError, match="lists other shards than its manifest; its shards are safe"):
        run.store.listed(fewer)


def test_bytes_are_read_without_arrows_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them aborts a command that ends while it lets go of the bytes: `read_table` and `pre_buffer` use them."""
    table = pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    asked: list[dict[str, Any]] = []
    files: list[Mock] = []
    real = pq.ParquetFile

    def opened(source: Any, **how: Any) -> Any:
        asked.append(how)
        files.append(Mock(wraps=real(source, **how)))
        return files[-1]

    monkeypatch.setattr(pq, "ParquetFile", opened)
    monkeypatch.setattr(pq, "read_table", lambda *_, **__: pytest.fail("read_table has threads"))
    assert read_buffer(data).equals(table)
    assert read_buffer(data, ["c", "a"]).equals(table.select(["c", "a"]))
    assert [how["pre_buffer"] for how in asked] == [False, False]
    assert [file.read.call_args.kwargs["use_threads"] for file in files] == [False, False]
