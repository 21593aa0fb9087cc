"""Stored pictures become squares as CLIP sees them; rows are the kept pictures of one split, in units of bounded size."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from corgi.feeding import pictures as feeding
from corgi.feeding.pictures import PictureRows, PictureSet, square, square_pictures
from corgi.tables.schema import Split
from tests.support.tables import tiny_run


def test_a_square_keeps_the_centre_of_the_longer_side() -> None:
    picture = Image.new("RGB", (90, 30), "red")
    picture.paste("blue", (30, 0, 60, 30))
    pixels = square(picture, 16)
    assert pixels.shape == (3, 16, 16)
    torch.testing.assert_close(
        pixels[:, :, 2:-2].mean((1, 2)), torch.tensor([0.0, 0.0, 1.0]), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("size", [(1, 1), (300, 7), (7, 300), (16, 16)])
def test_any_size_becomes_the_square_asked_for(size: tuple[int, int]) -> None:
    pixels = square(Image.new("RGB", size, "white"), 16)
    assert pixels.shape == (3, 16, 16)
    assert float(pixels.min()) == 1


def test_stored_encodings_are_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (255, 128, 0)).save(buffer, "PNG")
    [pixels] = square_pictures(pa.chunked_array([[buffer.getvalue()]]), 8)
    np.testing.assert_allclose(pixels.mean((1, 2)), [1, 128 / 255, 0], atol=0.01)


@pytest.mark.parametrize("split", Split)
def test_rows_are_the_kept_pictures_of_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: Split
) -> None:
    """Units are part of a shard, so that what a lane holds decoded does not grow with the shard."""
    monkeypatch.setattr(feeding, "UNIT_PICTURES", 3)
    run = tiny_run(tmp_path)
    stages = {stage: run.stages()[stage].path for stage in ("download", "curate")}
    rows = PictureRows(PictureSet.open(str(tmp_path), stages), split, 8)
    expected: list[torch.Tensor] = []
    for shard, selection in zip(run.shards("download"), run.shards("curate"), strict=True):
        keep = {row["uid"] for row in run.store.read(selection, "selection").to_pylist() if row["keep"]}
        stored = run.store.read(shard, "images").to_pylist()
        mine = [row["image"] for row in stored if row["uid"] in keep and row["split"] == split]
        expected += [square_pictures(pa.chunked_array([[image]]), 8)[0] for image in mine]
    assert max(rows.counts) <= 3
    found = [rows.load(unit)["picture"] for unit in range(len(rows.counts))]
    assert [len(part) for part in found] == list(rows.counts)
    together = np.concatenate(found)
    assert together.dtype == np.uint8
    assert len(together) == len(expected) > 0
    np.testing.assert_allclose(together / 255, torch.stack(expected), atol=0.5 / 255 + 1e-6)
