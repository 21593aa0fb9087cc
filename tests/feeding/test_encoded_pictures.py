"""Rows of large pictures: held as they are stored, decoded for a batch, each with its own embedding."""

import pyarrow as pa
import pytest
import torch

from corgi.feeding.encoded_pictures import EncodedPictureRows
from corgi.feeding.feed import Feed, tensors
from corgi.feeding.order import Order
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.pictures import square_pictures
from corgi.imaging.decode import decode_stored
from corgi.settings.errors import StorageError
from corgi.tables.run import Run
from corgi.tables.schema import Split
from tests.support.objectives import prior_run

SIDE = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return prior_run(tmp_path_factory.mktemp("run"))


def rows_of(run: Run, split: Split = Split.TRAIN, side: int = SIDE) -> EncodedPictureRows:
    root = str(run.store.root.parent)
    images = run.store.listed(run.stages()["download"])
    return EncodedPictureRows(PackedSet.open(root, run.stages()["pack"].path), images, split, side)


@pytest.mark.parametrize("split", Split)
def test_every_picture_comes_with_its_own_embedding(run: Run, split: Split) -> None:
    rows, packed = rows_of(run, split), PackedSet.open(str(run.store.root.parent), run.stages()["pack"].path)
    assert sum(rows.counts) == packed.num_rows(split) > 0
    stored = {
        row["uid"]: row["image"]
        for shard in run.shards("download")
        for row in run.store.read(shard, "images", ["uid", "image"]).to_pylist()
    }
    for number in range(len(rows.counts)):
        table, loaded = packed.read(packed.units(split).at(number), ["uid", "image"]), rows.load(number)
        assert list(loaded["picture"]) == [stored[uid] for uid in table["uid"].to_pylist()]
        assert loaded["image"].tolist() == table["image"].to_pylist()


def test_a_batch_has_the_pictures_that_the_autoencoder_would_read(run: Run) -> None:
    rows = rows_of(run)
    loaded = rows.load(0)
    found = tensors(rows, loaded)["picture"]
    expected = square_pictures(pa.chunked_array([list(loaded["picture"])]), SIDE)
    assert found.dtype == torch.uint8
    assert torch.equal(found, (expected * 255).round().to(torch.uint8))


def test_the_feed_decodes_what_it_gives(run: Run) -> None:
    rows = rows_of(run)
    feed = Feed(rows, Order(rows.counts, 0, 1, 4), 4, (0, 1))
    try:
        batch = next(iter(feed.batches(0, 1)))
    finally:
        feed.close()
    assert batch.columns["picture"].shape == (4, 3, SIDE, SIDE)
    assert batch.columns["image"].dtype == torch.float16


def test_pictures_stored_smaller_than_the_side_are_counted(run: Run) -> None:
    pictures = [
        data for unit in range(len(rows_of(run).counts)) for data in rows_of(run).load(unit)["picture"]
    ]
    sides = [min(decode_stored(data).size) for data in pictures]
    assert len(set(sides)) > 1
    for side in (16, 41, 49, 64):
        assert rows_of(run, side=side).num_smaller() == sum(own < side for own in sides)


def test_a_picture_that_is_not_stored_any_more_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(run)
    read = type(run.store).read
    monkeypatch.setattr(type(run.store), "read", lambda *given: read(*given).slice(0, 0))
    with pytest.raises(StorageError, match="a picture of the training table is not stored here") as error:
        rows.load(0)
    assert "\n" not in str(error.value)
