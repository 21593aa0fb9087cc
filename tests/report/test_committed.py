"""What the report reads: manifests whole, tables of as many first shards as fit, nothing of a stage that is not there."""

from pathlib import Path

import pytest

from corgi.report import committed as module
from corgi.report.committed import Committed
from corgi.settings.errors import StorageError
from corgi.tables.run import Run
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


def test_no_more_manifests_than_the_bound_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MANIFESTS", 2)
    assert [shard.shard for shard in Committed(run).shards("plan")] == ["00000", "00001"]


def test_a_changed_table_is_not_read(run: Run) -> None:
    path = run.store.path(run.shards("plan")[0], "plan")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError):
        Committed(run).table("plan", "plan", ["uid"])
