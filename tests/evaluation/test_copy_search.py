"""What a run painted is searched for copies of its training pictures: planted ones are found, others are not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw

from corgi.evaluation.copy_search import CopySearch, Latents, PaintedSet
from corgi.evaluation.painting import CEILING, FROM_PRIOR
from corgi.feeding.pictures import at_side
from corgi.imaging.decode import decode_stored
from corgi.models.spatial_autoencoder import PixelCodec, SpatialAutoencoder
from corgi.tables import schema
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import ShardTask, Store
from corgi.unit_vectors import unit_rows
from tests.support.tables import DIM, close_stage, some_pictures, tiny_run

SIDE = 16
LATENTS = Latents(SpatialAutoencoder(PixelCodec(), SIDE), torch.device("cpu"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = tiny_run(tmp_path, some_pictures(60))
    commit_latents(run)
    return run


def commit_latents(run: Run) -> None:
    """Commit the latents of all stored pictures, in another order than theirs and by row group; those of one shard as 0.1 did."""
    made: list[ShardManifest] = []
    for shard in run.shards("download"):
        images = run.store.read(shard, "images", ["uid", "split", "image"]).to_pylist()[::-1]
        latents = LATENTS.of([decode_stored(image.pop("image")) for image in images])
        rows = [{**image, "latent": latent.tolist()} for image, latent in zip(images, latents, strict=True)]
        table = pa.Table.from_pylist(rows, schema=schema.latents(latents.shape[1]))
        task = ShardTask(str(run.store.root.parent), "autoencoder", shard.shard, shard.shard, 1, "c", {})
        with run.store.attempt(task) as attempt:
            facts = attempt.write_row_groups("latents", table, [len(rows) - 3, 3]) if made else {}
            if not made:
                attempt.write_table("latents", table)
            made.append(attempt.commit(RowCounts(rows_in=len(rows), kept=len(rows)), facts))
    close_stage(run, "autoencoder", made, ["download"])


def drawing(seed: int) -> Image.Image:
    """Return a picture of its own: large ellipses of drawn places and colours."""
    draws = np.random.default_rng(seed)
    made = Image.new("RGB", (48, 48), tuple(draws.integers(0, 256, 3).tolist()))
    for _ in range(4):
        left, top = draws.integers(0, 32, 2).tolist()
        ImageDraw.Draw(made).ellipse(
            (left, top, left + 20, top + 16), tuple(draws.integers(0, 256, 3).tolist())
        )
    return made


def drawings(first: int, number: int) -> tuple[np.ndarray, list[Image.Image]]:
    """Return unit vectors and pictures that are no training pictures."""
    vectors = np.random.default_rng(first).normal(size=(number, DIM)).astype(np.float32)
    return unit_rows(vectors), [drawing(first + n) for n in range(number)]


def search(run: Run, limit: int = 1000) -> CopySearch:
    shards = {name: list(run.shards(name)) for name in ("download", "embed", "curate")}
    stored = run.store.listed(run.store.read_stage(run.stages()["autoencoder"].path))
    latents = dataclasses.replace(LATENTS, stored=stored)
    return CopySearch.of_run(run.store, shards, latents, drawings(10_000, 100)[1], limit)


def copied(searched: CopySearch, rows: list[int]) -> tuple[np.ndarray, list[Image.Image]]:
    """Return training pictures scaled to the decoder's side, with embeddings that differ a little."""
    noise = np.random.default_rng(0).normal(size=(len(rows), DIM)) * 0.01
    pictures = [one.resize((SIDE, SIDE)) for one in searched.pictures(rows)]
    return unit_rows(searched.own[rows] + noise), pictures


def painted(*parts: tuple[np.ndarray, list[Image.Image]]) -> PaintedSet:
    vectors = np.concatenate([part[0] for part in parts])
    pictures = [picture for part in parts for picture in part[1]]
    captions = [f"caption {n}" for n in range(len(pictures))]
    return PaintedSet(
        captions, {FROM_PRIOR: pictures, CEILING: pictures}, {FROM_PRIOR: vectors, CEILING: vectors}
    )


def test_law_planted_copies_are_found_with_what_they_copy_and_others_are_not(run: Run) -> None:
    searched = search(run)
    rows = list(range(0, len(searched.uid), 3))
    [found] = searched.copies([painted(copied(searched, rows), drawings(20_000, 50))])
    is_copy = found[FROM_PRIOR].is_copy
    assert is_copy[: len(rows)].mean() >= 0.9
    assert is_copy[len(rows) :].mean() <= 0.06
    assert np.mean(found[FROM_PRIOR].nearest[: len(rows)] == rows) >= 0.9


def test_law_each_set_is_told_as_if_it_were_alone(run: Run) -> None:
    searched = search(run)
    sets = [
        painted(copied(searched, [0, 5, 9])),
        painted(drawings(30_000, 7)),
        painted(copied(searched, [4])),
    ]
    for together, alone in zip(
        searched.copies(sets), [searched.copies([one])[0] for one in sets], strict=True
    ):
        for way in (FROM_PRIOR, CEILING):
            assert together[way].share == alone[way].share
            assert together[way].threshold == alone[way].threshold
            np.testing.assert_array_equal(together[way].is_copy, alone[way].is_copy)


def test_the_report_tells_shares_with_intervals_and_shows_the_nearest(run: Run) -> None:
    searched = search(run)
    sets = {"TRAIN": painted(copied(searched, list(range(10)))), "HELD-OUT": painted(drawings(40_000, 20))}
    told, plate = searched.report(sets)
    assert json.loads(json.dumps(told)) == told
    of_train, of_held_out = told["TRAIN"][FROM_PRIOR], told["HELD-OUT"][CEILING]  # pyright: ignore[reportIndexIssue]
    assert of_train["images"] == 10
    assert of_held_out["images"] == 20
    assert of_held_out["copies"] < 0.2 < 0.8 < of_train["copies"]
    for share in (of_train, of_held_out):
        assert share["copies, low 95%"] <= share["copies"] <= share["copies, high 95%"]
    assert told["calibration"]["near among held-out pictures"] <= 0.02  # pyright: ignore[reportIndexIssue]
    assert plate.height > 8 * 144  # four rows of each set


def test_held_out_pictures_are_seen_as_the_decoder_would_be_shown_them(run: Run) -> None:
    stored = [drawing(seed).resize((96, 64)) for seed in range(5)]
    shards = {name: list(run.shards(name)) for name in ("download", "embed", "curate")}
    latents = search(run).latents
    seen = CopySearch.of_run(run.store, shards, latents, stored, 1000).held_out
    np.testing.assert_array_equal(seen, LATENTS.of([at_side(picture, SIDE) for picture in stored]))


def test_no_manifest_of_latents_is_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, read = list[str](), Store.read_shard

    def noted(store: Store, path: str) -> ShardManifest:
        opened.append(path)
        return read(store, path)

    monkeypatch.setattr(Store, "read_shard", noted)
    searched = search(run)
    assert opened
    uids = {shard: found for shard, found in by_shard(run, searched).items() if found}
    assert len(uids) > 1
    del opened[:]
    np.testing.assert_array_equal(searched.latents.of_stored(run.store, uids), searched.training)
    assert opened == []


def test_latents_that_were_not_committed_are_no_zeros(run: Run) -> None:
    searched = search(run)
    [first, *_] = by_shard(run, searched)
    with pytest.raises(AssertionError, match="1 kept pictures have no latent"):
        searched.latents.of_stored(run.store, {first: [searched.uid[0], "absent"]})


def by_shard(run: Run, searched: CopySearch) -> dict[str, list[str]]:
    stored = {
        shard.shard: set(run.store.read(shard, "images", ["uid"])["uid"].to_pylist())
        for shard in run.shards("download")
    }
    return {name: [uid for uid in searched.uid if uid in uids] for name, uids in stored.items()}


def test_training_pictures_have_the_latents_that_were_committed_of_them(run: Run) -> None:
    searched = search(run)
    rows = [0, 7, len(searched.uid) - 1]
    encoded = LATENTS.of(searched.pictures(rows))
    np.testing.assert_allclose(searched.training[rows], encoded, atol=2e-3)


def test_training_pictures_are_read_up_to_the_limit(run: Run) -> None:
    few, whole = search(run, 1), search(run)
    assert few.uid == whole.uid[: len(few.uid)]
    assert 0 < len(few.uid) < len(whole.uid)
