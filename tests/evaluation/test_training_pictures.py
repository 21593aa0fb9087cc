"""The training pictures that painted ones are compared with: all that are used, each found again as itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corgi.evaluation.copying import cosine, nearest
from corgi.evaluation.training_pictures import Pixels, centred, load_training_pictures, pixels_of
from tests.evaluation.test_judged import JUDGE, SIDE
from tests.support.tables import Picture, some_pictures, tiny_run

UNCAPTIONED = Picture("http://pictures.test/bare.png")


def test_they_are_the_train_pictures_in_use_captioned_or_not(tmp_path: Path) -> None:
    pictures = [*some_pictures(40), UNCAPTIONED]
    run = tiny_run(tmp_path, pictures)
    shards = {name: list(run.shards(name)) for name in ("download", "embed", "curate")}
    training = load_training_pictures(run.store, shards, JUDGE, SIDE, 1000)
    kept = {
        row["uid"]
        for shard in shards["curate"]
        for row in run.store.read(shard, "selection").to_pylist()
        if row["keep"]
    }
    train = {picture.uid for picture in pictures if picture.reason is None and picture.split == "train"}
    assert set(training.uid) == kept & train
    assert UNCAPTIONED.uid in training.uid
    assert len(training.uid) == len(training.own) == len(training.judged) == len(training.pixels)
    np.testing.assert_allclose(np.linalg.norm(training.judged, axis=1), 1, atol=1e-5)
    last = len(training.uid) - 1
    seen = centred(JUDGE.features(training.pictures([0, last])), training.centre)
    np.testing.assert_array_equal(nearest(seen, training.judged, cosine)[0], [0, last])
    few = load_training_pictures(run.store, shards, JUDGE, SIDE, 1)
    assert few.uid == training.uid[: len(few.uid)]
    assert 0 < len(few.uid) < len(training.uid)


def test_they_are_decoded_a_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path)
    shards = {name: list(run.shards(name)) for name in ("download", "embed", "curate")}
    whole = load_training_pictures(run.store, shards, JUDGE, SIDE, 1000)
    sizes: list[int] = []

    def noted(pictures: Sequence[Image.Image], side: int) -> Pixels:
        sizes.append(len(pictures))
        return pixels_of(pictures, side)

    monkeypatch.setattr("corgi.evaluation.training_pictures.pixels_of", noted)
    monkeypatch.setattr("corgi.evaluation.training_pictures.DECODED_AT_ONCE", 1, raising=False)
    parts = load_training_pictures(run.store, shards, JUDGE, SIDE, 1000)
    assert sizes == [1] * len(whole.uid)
    assert parts.uid == whole.uid
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    np.testing.assert_allclose(parts.judged, whole.judged, atol=1e-4)


def test_pixels_are_the_bytes_of_a_picture_of_that_side() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)
    found = pixels_of([Image.fromarray(one) for one in drawn], SIDE)
    np.testing.assert_array_equal(found, drawn.transpose(0, 3, 1, 2).reshape(3, -1))


def test_vectors_from_their_centre_are_unit_and_of_mean_zero_direction() -> None:
    features = np.random.default_rng(0).normal(size=(50, 6)) + 9
    vectors = centred(features, features.mean(0))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.linalg.norm(vectors.mean(0)) < 0.3
    assert centred(features[:1], features[0]).tolist() == [[0.0] * 6]
