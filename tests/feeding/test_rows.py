"""Training rows: exactly the kept pictures of a split, each with its own vectors and captions."""

import numpy as np
import pyarrow as pa
import pytest

from corgi.feeding.rows import DecoderRows, PriorRows, embedded_shards
from corgi.tables import schema
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.schema import Split
from tests.support.tables import DIM, Output, Picture, commit_stage, some_pictures, tiny_run, vector

LATENT = 4


def _shards(run: Run) -> list[EmbeddedShard]:
    paths = {stage: tuple(shard.path for shard in run.shards(stage)) for stage in ("embed", "curate")}
    return embedded_shards(str(run.store.root.parent), paths)


def _latents(run: Run) -> list[str]:
    outputs = {}
    for shard in run.shards("download"):
        images = run.store.read(shard, "images", ["uid", "split"]).to_pylist()
        rows = [{**row, "latent": [float(int(row["uid"][:2], 16))] * LATENT} for row in reversed(images)]
        table = pa.Table.from_pylist(rows, schema=schema.latents(LATENT))
        outputs[shard.shard] = Output(RowCounts(rows_in=len(rows), kept=len(rows)), {"latents": table})
    commit_stage(run, "autoencoder", outputs, ["download"])
    return [shard.path for shard in run.shards("autoencoder")]


@pytest.fixture
def run(tmp_path) -> Run:
    return tiny_run(tmp_path)


def _expected(run: Run, split: str) -> list[Picture]:
    dropped = {
        row["uid"]
        for shard in run.shards("curate")
        for row in run.store.read(shard, "selection").to_pylist()
        if not row["keep"]
    }
    return [p for p in some_pictures() if p.reason is None and p.split == split and p.uid not in dropped]


@pytest.mark.parametrize("split", list(Split))
def test_rows_are_the_kept_pictures_of_the_split_and_no_others(run, split):
    rows = PriorRows(_shards(run), split)
    loaded = np.concatenate([rows.load(unit)["image"] for unit in range(len(rows.counts))])
    expected = sorted(list(vector(p.uid, DIM)) for p in _expected(run, split.value))
    assert sum(rows.counts) == len(loaded) == len(expected)
    np.testing.assert_allclose(sorted(loaded.tolist()), expected, atol=2e-3)


def test_each_picture_has_its_own_captions_by_kind(run):
    rows = PriorRows(_shards(run), Split.TRAIN)
    for unit, count in enumerate(rows.counts):
        loaded = rows.load(unit)
        assert loaded["full"].shape[:2] == loaded["coarse"].shape[:2] == (count, 1)
        assert loaded["num_full"].tolist() == loaded["num_coarse"].tolist() == [1] * count
        full = (loaded["image"] * loaded["full"][:, 0]).sum(1)
        coarse = (loaded["image"] * loaded["coarse"][:, 0]).sum(1)
        assert (full > coarse).all()
        assert (loaded["full"][:, 1:] == 0).all()


def test_a_picture_without_a_full_caption_trains_the_decoder_only(tmp_path):
    pictures = [
        Picture(f"http://p.test/{n}", (("word", "coarse"),) if n % 2 else (("a full one", "full"),))
        for n in range(9)
    ]
    run = tiny_run(tmp_path, pictures)
    latents = _latents(run)
    assert sum(PriorRows(_shards(run), Split.TRAIN).counts) == 4
    assert sum(DecoderRows(_shards(run), latents, Split.TRAIN).counts) == 8


def test_latents_meet_their_pictures_whatever_their_order(run):
    rows = DecoderRows(_shards(run), _latents(run), Split.TRAIN)
    by_vector = {tuple(vector(p.uid, DIM)): int(p.uid[:2], 16) for p in some_pictures()}
    for unit, count in enumerate(rows.counts):
        loaded = rows.load(unit)
        assert len(loaded["latent"]) == count
        for image, latent in zip(loaded["image"], loaded["latent"], strict=True):
            nearest = min(by_vector, key=lambda known: float(np.abs(np.array(known) - image).sum()))
            assert latent.tolist() == [by_vector[nearest]] * LATENT


def test_a_missing_latent_is_not_passed_over(run):
    latents = _latents(run)
    with pytest.raises(AssertionError, match="no latent"):
        DecoderRows(_shards(run), list(reversed(latents)), Split.TRAIN).load(0)
