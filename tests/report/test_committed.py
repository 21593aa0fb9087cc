"""What the report reads: sums over all shards, tables of as many first shards as fit, nothing of a stage that is not there."""

import json
from pathlib import Path
from typing import Any

import pytest

from corgi.report import committed as module
from corgi.report.committed import Committed
from corgi.settings.errors import StorageError
from corgi.tables.manifest import FileEntry, RowCounts, ShardEntry, StageManifest
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store
from tests.support.tables import new_run, tiny_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return tiny_run(tmp_path, num_shards=4)


def test_a_stage_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    found = Committed(new_run(tmp_path))
    assert (found.shards("plan"), found.entries("plan", "plan"), found.files("plan", ".png")) == ([], [], {})
    assert (found.num_rows("plan", "plan"), found.total("plan", "urls")) == (0, 0)
    assert found.table("plan", "plan", ["uid"]) is None
    assert not found.counts("plan", "formats")
    assert not found.is_sampled


def test_rows_and_bytes_of_the_manifests_are_those_of_the_files(run: Run) -> None:
    found = Committed(run)
    for stage, table in (("plan", "plan"), ("download", "ledger"), ("embed", "image_embeddings")):
        whole = found.table(stage, table, ["uid"])
        assert whole is not None
        assert found.num_rows(stage, table) == whole.num_rows
        sizes = [run.store.path(shard, table).stat().st_size for shard in run.shards(stage)]
        assert found.num_bytes(stage, table) == sum(sizes)
    assert found.total("plan", "urls") == found.num_rows("plan", "plan")


def test_a_sample_is_the_first_shards_that_fit_and_one_at_least(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [sum(entry.size for entry in shard.files) for shard in run.shards("download")]
    names = [shard.shard for shard in run.shards("download")]
    for num in range(1, 5):
        monkeypatch.setattr(module, "MAX_PICTURE_BYTES", sum(sizes[:num]))
        found = Committed(run)
        assert found.sample == tuple(names[:num])
        assert found.is_sampled == (num < 4)
        images = found.table("download", "images", ["uid"])
        assert images is not None
        assert images.num_rows == sum(shard.rows.kept for shard in run.shards("download")[:num]) or num
    monkeypatch.setattr(module, "MAX_PICTURE_BYTES", 0)
    assert Committed(run).sample == tuple(names[:1])


def test_no_more_shards_than_the_bound_are_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHARDS", 2)
    assert [shard.shard for shard in Committed(run).shards("plan")] == ["00000", "00001"]


def test_a_changed_table_is_not_read(run: Run) -> None:
    path = run.store.path(run.shards("plan")[0], "plan")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError):
        Committed(run).table("plan", "plan", ["uid"])


NUM_SHARDS, ROWS_A_SHARD = 40_000, 10_000


def large_stage(store: Store, stage: str, table: str, facts: dict[str, Any]) -> StageManifest:
    """Close a stage of 40,000 shards that exist in its index alone."""
    files = [FileEntry(table=table, name="x", size=100, sha256="0" * 64, rows=ROWS_A_SHARD).model_dump()]
    rows = (ROWS_A_SHARD, ROWS_A_SHARD, "{}")
    shards = [
        ListedShard(stage, f"{at:05d}", f"{stage}/{at}/manifest-0.json", f"{at:032x}", *rows, files, told)
        for at, told in enumerate([json.dumps(facts)] * NUM_SHARDS)
    ]
    entries = tuple(ShardEntry(shard.shard, shard.path, shard.digest) for shard in shards)
    whole = RowCounts(rows_in=ROWS_A_SHARD * NUM_SHARDS, kept=ROWS_A_SHARD * NUM_SHARDS)
    made = {"key": stage, "version": 1, "code": "", "commit": None, "settings": {}, "inputs": {}}
    manifest = StageManifest(stage=stage, shards=entries, rows=whole, **made)
    return store.close(store.indexed(manifest, shards))


@pytest.mark.slow
def test_law_figures_are_sums_over_all_shards_whatever_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    splits = {"splits": {split: {"images": 2, "captioned": 1} for split in Split}}
    facts = {"bytes": 7, "formats": {"JPEG": 3, "PNG": 1}, **splits}
    run.record("download", large_stage(run.store, "download", "images", facts))
    monkeypatch.setattr(Store, "read_shard", lambda self, path: pytest.fail(f"{path} was opened"))
    found = Committed(run)
    assert found.num_rows("download", "images") == NUM_SHARDS * ROWS_A_SHARD
    assert found.num_bytes("download", "images") == NUM_SHARDS * 100
    assert found.total("download", "bytes") == NUM_SHARDS * 7
    assert found.counts("download", "formats") == {"JPEG": NUM_SHARDS * 3, "PNG": NUM_SHARDS}
    assert found.totals("download").splits == {split.value: NUM_SHARDS * 2 for split in Split}
    assert len(found.shards("download")) == module.MAX_SHARDS
    assert found.is_sampled
