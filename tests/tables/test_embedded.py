"""The one reader of the embedded set: what the selection drops or withholds is seen by nobody."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from corgi.clip.export_embeddings import clip_retrieval
from corgi.evaluation.measured import load_pictures
from corgi.feeding.rows import PriorRows, embedded_shards
from corgi.settings.errors import StorageError
from corgi.shift.maps import captions, images
from corgi.tables.embedded import EmbeddedShard, first_rows, rows_of, stored_pictures
from corgi.tables.run import Run
from corgi.tables.schema import Reason, Split
from tests.support.tables import commit_curate, encoded, some_pictures, tiny_run

PICTURES = [p for p in some_pictures(40) if p.reason is None]
TRAIN = [p for p in PICTURES if p.split == "train"]
DROPPED, WITHHELD = {p.url for p in TRAIN[:5]}, {p.url for p in TRAIN[3:11]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("runs"), PICTURES)
    commit_curate(run, PICTURES, dict.fromkeys(DROPPED, Reason.EXACT_DUPLICATE), withheld=WITHHELD)
    return run


@pytest.mark.parametrize("split", [*Split, None])
def test_kept_pictures_and_those_whose_captions_count(run: Run, split: Split | None) -> None:
    kept = {p.uid for p in PICTURES if p.url not in DROPPED and split in (p.split, None)}
    withheld = {p.uid for p in PICTURES if p.url in WITHHELD}
    shards = run.embedded()
    assert {uid for shard in shards for uid in shard.images(split)["uid"].to_pylist()} == kept
    found = [uid for shard in shards for uid in shard.captioned_images(split, [])["uid"].to_pylist()]
    assert set(found) == kept - withheld
    assert len(found) == len(set(found)) < len(PICTURES)


def learned_by_the_prior(run: Run, folder: Path) -> int:
    paths = {stage: tuple(shard.path for shard in run.shards(stage)) for stage in ("embed", "curate")}
    shards = embedded_shards(str(run.store.root.parent), paths)
    return sum(sum(PriorRows(shards, split).counts) for split in Split)


def learned_by_the_shift(run: Run, folder: Path) -> int:
    parts = [captions(shard, images(shard, split)[0]) for shard in run.embedded() for split in Split]
    return sum(len(rows) for rows, _ in parts)


def learned_by_the_references(run: Run, folder: Path) -> int:
    shards = {name: run.shards(name) for name in ("download", "embed", "curate")}
    return int(load_pictures(run.store, shards, 1000).learnable.sum())


def exported(run: Run, folder: Path) -> int:
    return clip_retrieval(run, folder / "out")


@pytest.mark.law
@pytest.mark.parametrize(
    "reader", [learned_by_the_prior, learned_by_the_shift, learned_by_the_references, exported]
)
def test_every_reader_sees_the_same_captioned_pictures(
    run: Run, tmp_path: Path, reader: Callable[[Run, Path], int]
) -> None:
    assert reader(run, tmp_path) == len({p.url for p in PICTURES} - DROPPED - WITHHELD)


def test_encodings_are_those_of_the_pictures_asked_for(run: Run) -> None:
    chosen = PICTURES[::7]
    assert stored_pictures(run.embedded(), {p.uid for p in chosen}) == {p.uid: encoded(p) for p in chosen}


def test_no_shard_is_read_after_the_last_picture_is_found(run: Run) -> None:
    shard, later = run.embedded()[:2]
    unreadable = dataclasses.replace(later, download="no such manifest")
    first, last = min(p.uid for p in PICTURES), max(p.uid for p in PICTURES)
    assert set(stored_pictures([shard, unreadable], [first])) == {first}
    with pytest.raises(StorageError):
        stored_pictures([shard, unreadable], [first, last])


def test_a_selection_of_other_rows_is_not_passed_over(run: Run) -> None:
    first, second = run.embedded()
    with pytest.raises(AssertionError, match="do not have the same rows"):
        EmbeddedShard(first.root, "x", first.embed, second.curate).images()


def test_rows_by_name_and_the_first_row_of_each_key() -> None:
    assert rows_of(["b", "c", "a"], ["a", None, "b"]).tolist() == [2, -1, 0]
    assert first_rows("abcab") == {"a": 0, "b": 1, "c": 2}
