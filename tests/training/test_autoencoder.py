"""Stored pictures become squares as CLIP sees them, and latents of kept pictures only."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from corgi.models.autoencoder import fit_linear
from corgi.tables.manifest import RowCounts
from corgi.tables.store import ShardTask
from corgi.training.autoencoder import EncodeShards, square, square_pictures
from tests.support.tables import Output, commit_stage, tiny_run


def test_a_square_keeps_the_centre_of_the_longer_side():
    picture = Image.new("RGB", (90, 30), "red")
    picture.paste("blue", (30, 0, 60, 30))
    pixels = square(picture, 16)
    assert pixels.shape == (3, 16, 16)
    torch.testing.assert_close(
        pixels[:, :, 2:-2].mean((1, 2)), torch.tensor([0.0, 0.0, 1.0]), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("size", [(1, 1), (300, 7), (7, 300), (16, 16)])
def test_any_size_becomes_the_square_asked_for(size):
    pixels = square(Image.new("RGB", size, "white"), 16)
    assert pixels.shape == (3, 16, 16)
    assert float(pixels.min()) == 1


def test_stored_encodings_are_decoded():
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (255, 128, 0)).save(buffer, "PNG")
    [pixels] = square_pictures(pa.chunked_array([[buffer.getvalue()]]), 8)
    np.testing.assert_allclose(pixels.mean((1, 2)), [1, 128 / 255, 0], atol=0.01)


def test_latents_are_those_of_the_kept_pictures_in_uid_order(tmp_path):
    run = tiny_run(tmp_path)
    autoencoder = fit_linear(torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 5, seed=0)
    state = {name: value.contiguous() for name, value in autoencoder.state_dict().items()}
    files = {"autoencoder": (".safetensors", save(state))}
    model = Output(RowCounts(rows_in=1, kept=1), files=files, settings={"autoencoder": {"kind": "linear"}})
    commit_stage(run, "model", {"model": model})
    kept_in_all = 0
    for images, selection in zip(run.shards("download"), run.shards("curate"), strict=True):
        task = ShardTask(
            root=str(tmp_path),
            stage="autoencoder",
            shard=images.shard,
            key=f"key{images.shard}",
            version=1,
            code="",
            settings={},
            inputs={"download": (images.path,), "curate": (selection.path,)},
            payload={"path": run.shards("model")[0].path},
        )
        made = EncodeShards().make(task)
        assert made.facts == {"autoencoder": run.shards("model")[0].digest}
        table = run.store.read(made, "latents")
        keep = [row["uid"] for row in run.store.read(selection, "selection").to_pylist() if row["keep"]]
        assert table["uid"].to_pylist() == keep == sorted(keep)
        stored = run.store.read(images, "images", ["uid", "image"]).to_pylist()
        pictures = pa.chunked_array([[row["image"] for row in stored if row["uid"] in keep]], pa.binary())
        expected = autoencoder.encode(square_pictures(pictures, 8))
        np.testing.assert_allclose(
            np.array(table["latent"].to_pylist(), np.float32), expected, rtol=2e-3, atol=2e-3
        )
        kept_in_all += len(keep)
    assert kept_in_all == run.stages()["curate"].rows.kept
