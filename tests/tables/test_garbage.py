"""What can go: nothing of a finished run, all of a run that is gone, and never what an unfinished stage goes on from."""

from pathlib import Path

import pytest

from corgi.settings.errors import StorageError
from corgi.tables.garbage import (
    SHARDS_PER_PART,
    Contents,
    facts_of_runs,
    parts,
    referring_stages,
    remove,
    unreferenced,
    unreferenced_in,
)
from corgi.tables.run import Run
from tests.support.tables import new_run, tiny_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return tiny_run(tmp_path)


def test_a_store_is_listed_by_kind_whole(run: Run) -> None:
    contents = Contents.of(run.store)
    listed = {str(path.relative_to(run.store.root)) for path in run.store.root.rglob("*") if path.is_file()}
    assert set(contents.sizes) == listed
    stages = run.stages().values()
    assert sorted(contents.stages) == sorted(manifest.path for manifest in stages)
    assert sorted(contents.shards) == sorted(entry.path for manifest in stages for entry in manifest.shards)


def test_nothing_of_a_run_can_go_and_everything_of_a_run_that_is_gone(run: Run) -> None:
    assert unreferenced(run.store) == {}
    (run.folder / "run.json").unlink()
    assert unreferenced(run.store) == Contents.of(run.store).sizes


def test_what_two_runs_share_stays_until_both_are_gone(run: Run) -> None:
    other = new_run(run.folder.parent, "other")
    for stage, manifest in run.stages().items():
        other.record(stage, manifest)
    (run.folder / "run.json").unlink()
    assert unreferenced(run.store) == {}


def test_a_file_that_no_manifest_lists_can_go(run: Run) -> None:
    (run.store.root / run.shards("plan")[0].path).with_name("left-plan.parquet").write_bytes(b"1234")
    assert list(unreferenced(run.store).values()) == [4]


def test_law_parts_of_any_size_hold_every_file_once(run: Run) -> None:
    (run.store.root / "embed" / "closed").mkdir(exist_ok=True)
    whole = Contents.of(run.store).sizes
    for size in (1, 2, 3, SHARDS_PER_PART):
        found = parts(run.store, size)
        listed = [name for part in found for name in Contents.of(run.store, part).sizes]
        assert sorted(listed) == sorted(whole)
        assert all(part.holds(name) for part in found for name in Contents.of(run.store, part).sizes)
        folders = [{name.split("/")[1] for name in Contents.of(run.store, part).sizes} for part in found]
        assert max(map(len, folders)) <= size


def test_what_can_go_is_the_same_whatever_the_parts(run: Run) -> None:
    other = new_run(run.folder.parent, "other")
    for stage in ("plan", "download"):
        other.record(stage, run.stages()[stage])
    (run.folder / "run.json").unlink()
    runs, expected = facts_of_runs(run.store), unreferenced(run.store)
    assert expected
    for size in (1, 2):
        found = [unreferenced_in(run.store, runs, part) for part in parts(run.store, size)]
        assert {name: of for some in found for name, of in some.items()} == expected


def test_where_removal_is_stopped_no_manifest_lists_files_that_are_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(Contents.of(run.store).sizes)
    gone: list[str] = []
    monkeypatch.setattr(run.store.storage, "remove", gone.append)
    remove(run.store, names)
    is_manifest = [name.rpartition("/")[2].startswith("manifest-") for name in gone]
    assert sorted(gone) == sorted(names)
    assert is_manifest == sorted(is_manifest, reverse=True)
    assert set(is_manifest) == {True, False}


def test_while_a_run_is_damaged_nothing_is_known_to_be_free(run: Run) -> None:
    (run.folder / "run.json").write_text("{")
    with pytest.raises(StorageError, match="nothing was removed"):
        facts_of_runs(run.store)


def test_the_stages_that_list_a_shard_are_found(run: Run) -> None:
    path = run.shards("embed")[0].path
    (found,) = referring_stages(run.store, {path}, Contents.of(run.store))
    assert found.path == run.stages()["embed"].path
