"""Counts by split: those of the rows that every reader sees, taken from the facts where the selection has them."""

from pathlib import Path

import pytest

from corgi.feeding.pictures import PictureRows, PictureSet
from corgi.feeding.rows import PriorRows, listed_shards
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.run import Run
from corgi.tables.schema import Reason, Split
from corgi.tables.split_counts import SplitCount, as_facts, of_facts
from corgi.tables.store import Store
from tests.support.tables import Picture, commit_curate, some_pictures, tiny_run

COARSE = [Picture(f"http://p.test/{n}", (("word", "coarse"),) if n % 3 else ()) for n in range(9)]
PICTURES = [p for p in some_pictures(40) if p.reason is None] + COARSE
TRAIN = [p for p in PICTURES if p.split == "train"]
DROPPED, WITHHELD = {p.url for p in TRAIN[:5]}, {p.url for p in TRAIN[3:11]}


def finished(root: Path, counted: bool) -> Run:
    run = tiny_run(root, PICTURES)
    dropped = dict.fromkeys(DROPPED, Reason.EXACT_DUPLICATE)
    commit_curate(run, PICTURES, dropped, withheld=WITHHELD, counted=counted)
    return run


@pytest.mark.law
@pytest.mark.parametrize("counted", [True, False])
def test_counts_are_those_of_the_rows_that_readers_see(tmp_path, counted):
    for shard in finished(tmp_path, counted).embedded():
        for split in Split:
            images, captioned = shard.images(split).num_rows, shard.captioned_images(split).num_rows
            assert shard.counts()[split] == SplitCount(images, captioned)


def test_rows_are_counted_without_opening_a_table_or_a_manifest_of_a_shard(tmp_path, monkeypatch):
    run = finished(tmp_path, counted=True)
    stages = {stage: run.stages()[stage].path for stage in ("download", "embed", "curate")}
    root = str(run.store.root.parent)

    def opened(*args: object) -> None:
        raise AssertionError("a table or a manifest of a shard was opened")

    monkeypatch.setattr(Store, "read", opened)
    monkeypatch.setattr(Store, "read_shard", opened)
    expected = len(TRAIN) - len(DROPPED)
    pictures = PictureRows(PictureSet.open(root, stages), Split.TRAIN, 8)
    assert sum(pictures.counts) == expected
    learned = {p.url for p in TRAIN if any(kind == "full" for _, kind in p.captions)} - DROPPED - WITHHELD
    assert sum(PriorRows(listed_shards(root, stages), Split.TRAIN).counts) == len(learned)


def test_pictures_of_a_selection_without_counts_are_counted(tmp_path):
    run = finished(tmp_path, counted=False)
    stages = {stage: run.stages()[stage].path for stage in ("download", "embed", "curate")}
    root = str(run.store.root.parent)
    rows = PictureRows(PictureSet.open(root, stages), Split.TRAIN, 8)
    assert sum(rows.counts) == len(TRAIN) - len(DROPPED)
    captioned = PriorRows(listed_shards(root, stages), Split.VAL)
    assert sum(captioned.counts) == sum(p.split == "val" for p in PICTURES)


def test_facts_give_back_the_counts():
    counts = {split.value: SplitCount(3, 2) for split in Split}
    assert of_facts(as_facts(counts)) == counts
    assert of_facts({}) is None


def test_a_selection_of_other_rows_is_not_counted(tmp_path):
    first, second = finished(tmp_path, counted=False).embedded()
    with pytest.raises(AssertionError, match="do not have the same rows"):
        EmbeddedShard(first.root, "x", first.embed, second.curate).counts()
