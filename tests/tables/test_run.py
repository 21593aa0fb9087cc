"""A run's folder points at committed stages, whole or not at all."""

import pytest

from corgi.settings.errors import InputError, StorageError
from corgi.tables.manifest import RowCounts, ShardEntry, StageManifest
from corgi.tables.run import Run
from corgi.tables.store import Store
from tests.support.commit_script import KEY, STAGE, content, main


@pytest.fixture
def run(tmp_path) -> Run:
    """A run that points at one closed stage."""
    main(str(tmp_path))
    store = Store(tmp_path)
    closed = store.stage(STAGE, KEY)
    assert closed is not None
    made = Run(tmp_path / "one", store)
    made.note(name="one")
    made.record(STAGE, closed)
    return made


def test_a_run_is_opened_by_its_folder(run):
    opened = Run.open(run.folder)
    assert opened.facts == run.facts
    assert opened.stages()[STAGE].digest == content(run.store.root.parent)["digests"][0]
    assert [shard.shard for shard in opened.shards(STAGE)] == [f"{n:05d}" for n in range(6)]


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no run") as found:
        Run.open(tmp_path)
    assert "\n" not in str(found.value)


def test_a_stage_the_run_has_not_reached_is_one_line(run):
    with pytest.raises(InputError, match="no complete stage prior"):
        run.shards("prior")


def test_what_is_forgotten_is_no_longer_pointed_at_but_still_committed(run):
    run.forget(["other"])
    assert list(run.stages()) == [STAGE]
    run.forget([STAGE])
    assert run.stages() == {}
    assert run.facts["name"] == "one"
    assert run.store.stage(STAGE, KEY) is not None


def test_the_newest_generation_is_what_a_run_reads(run):
    shards = run.shards(STAGE)[:2]
    entries = tuple(ShardEntry(shard=m.shard, path=m.path, digest=m.digest) for m in shards)
    rows = sum((m.rows for m in shards), RowCounts(rows_in=0, kept=0))
    run.store.close(
        StageManifest(
            stage=STAGE,
            key=KEY,
            version=1,
            code="c",
            commit=None,
            settings={},
            inputs={},
            shards=entries,
            rows=rows,
        )
    )
    assert len(run.shards(STAGE)) == 2


@pytest.mark.parametrize("damage", ["", '{"stages"', "[]", "\x00"])
def test_a_damaged_run_file_is_one_line(run, damage):
    path = run.folder / "run.json"
    path.write_text(damage)
    with pytest.raises(StorageError, match="is damaged; tables and models are safe") as found:
        run.stages()
    assert str(path) in str(found.value)
