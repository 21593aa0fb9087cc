"""The whole way on drawn pictures: features, trained heads, an ordinary open_clip model, embeddings, clusters."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from corgi.clip import embed
from corgi.clip.references import model_shard, tower_refs
from corgi.clip.towers import Tower, load_tower
from corgi.clip.vectors import Vectors, matrix
from corgi.flow.dag import Dag
from corgi.flow.executor import in_process
from corgi.settings.clip import EmbedSettings
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe
from corgi.tables.schema import Split
from corgi.tables.store import Store
from tests.support.drawn import NUM_SHARDS, dag, picture, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRAINING = {
    "num_steps": 12,
    "global_batch": 16,
    "lr": 1e-3,
    "precision": "fp32",
    "ema_decay": 0.5,
    "zero_stage": 0,
}
TOWER = {"image_size": 64, "embed_dim": 16, "context_length": 12, "training": TRAINING}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Dag:
    built = dag(
        tmp_path_factory.mktemp("whole") / "runs",
        tower=TOWER,
        shift={"num_clusters": 3, "shrinkage_count": 5},
    )
    with in_process():
        run(built, "shift")
    return built


@pytest.mark.flow
def test_the_model_comes_first_and_loads_like_any_other(finished: Dag) -> None:
    shards = finished.run.shards("tower")
    assert [shard.shard for shard in shards] == ["model", "features-00000", "features-00001"]
    model = model_shard(reversed(shards))
    assert model == shards[0]
    (ref,) = tower_refs(finished.store, finished.recipe.embed, model)
    tower = load_tower(ref)
    assert (tower.name, tower.dim, tower.image_size) == ("own", 16, 64)
    stored = finished.store.read(finished.run.shards("embed")[0], "image_embeddings")
    found = tower.images([picture(number) for number in range(3)])[0]
    expected = np.stack(stored["own/image"][:3].to_pylist())
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert model is not None
    facts = json.loads(finished.store.path(model, "metrics").read_text())
    assert facts["packages"]["minilm"]["license"] == "MIT"
    assert 0 <= facts["val/text_to_image_r@1"] <= 1


@pytest.mark.flow
def test_features_are_of_train_and_val_pictures_with_full_captions_only(finished: Dag) -> None:
    for shard in finished.run.shards("tower")[1:]:
        pictures, captions = (finished.store.read(shard, name) for name in ("pictures", "captions"))
        assert set(pictures["split"].to_pylist()) == {Split.TRAIN.value, Split.VAL.value}
        assert set(pictures["uid"].to_pylist()) == set(captions["uid"].to_pylist())
        numbers = [int(uid, 16) for uid in pictures["uid"].to_pylist()]
        assert not any(number % 7 == 6 or number % 5 == 4 for number in numbers)
        assert captions.num_rows == len(numbers)


@pytest.mark.flow
def test_other_heads_reuse_the_features(finished: Dag) -> None:
    features = [shard.key for shard in finished.run.shards("tower")[1:]]
    from corgi.clip.features import feature_task

    other = dag(Path(finished.recipe.root), tower={**TOWER, "dropout": 0.1})
    context = other.context(other.stages[1], {"download": finished.run.stages()["download"]})
    tasks = [feature_task(context, download) for download in context.entries("download")]
    assert [task.key for task in tasks] == features
    assert context.task("model").key != finished.run.shards("tower")[0].key


@pytest.mark.flow
def test_embed_runs_the_trunks_only_on_what_has_no_features(
    finished: Dag, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, features = finished.store, finished.run.shards("tower")[1:]
    (ref,) = tower_refs(store, finished.recipe.embed, finished.run.shards("tower")[0])
    tower, trunks, computed = load_tower(ref), embed.embed_pictures, 0

    def counted(towers: Sequence[Tower], encoded: Sequence[bytes], *others: Any) -> Vectors:
        nonlocal computed
        computed += len(encoded)
        return trunks(towers, encoded, *others)

    monkeypatch.setattr(embed, "embed_pictures", counted)
    root = str(finished.recipe.root)
    again = dag(Path(root), name="again", tower=TOWER, embed={"batch_size": 16})
    with in_process():
        run(again, "embed")
    downloads, made = again.run.shards("download"), again.run.shards("embed")
    assert computed == sum(shard.rows.kept for shard in downloads) - sum(
        shard.rows.kept for shard in features
    )
    for download, shard in zip(downloads, made, strict=True):
        images = store.read(download, "images", ["uid", "image"])
        whole = trunks([tower], images["image"].to_pylist(), EmbedSettings(batch_size=16))
        _check_same(store.read(shard, "image_embeddings"), whole, "image")
        spoken = store.read(download, "captions", ["caption"])["caption"].to_pylist()
        _check_same(
            store.read(shard, "caption_embeddings"), embed.embed_captions([tower], spoken, 16), "text"
        )


def _check_same(stored: pa.Table, whole: Vectors, kind: str) -> None:
    """Compare to the precision of half floats, in which features and vectors are stored."""
    np.testing.assert_allclose(matrix(stored[f"own/{kind}"]), whole.unit["own"], atol=1e-3)
    np.testing.assert_allclose(stored[f"own/{kind}_norm"].to_numpy(), whole.norm["own"], rtol=2e-3)


@pytest.mark.flow
def test_shift_holds_the_moments_of_the_kept_train_pictures(finished: Dag) -> None:
    (shard,) = finished.run.shards("shift")
    tensors = load_file(finished.store.path(shard, "shift"))
    with safe_open(finished.store.path(shard, "shift"), "pt") as opened:
        metadata = opened.metadata()
    assert {"towers", "normalisation", "k", "seed", "data", "covariance"} == set(metadata)
    assert json.loads(metadata["towers"]) == ["own"]
    rows = _kept_train(finished.store, finished)
    assert tensors["mean"].shape == tensors["scale"].shape == (3, 16)
    assert int(tensors["count"].sum()) == len(rows) == shard.rows.kept
    np.testing.assert_allclose(tensors["global_mean"], rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(tensors["global_scale"], rows.std(axis=0), rtol=1e-4)
    share = (tensors["count"] / tensors["count"].sum()).double()
    np.testing.assert_allclose(share @ tensors["mean"].double(), rows.mean(axis=0), atol=1e-6)
    assert bool((tensors["scale"] > 0).all())
    assert torch.isfinite(tensors["scale"]).all()


def _kept_train(store: Store, built: Dag) -> np.ndarray:
    rows: list[np.ndarray] = []
    for embedded, curate in zip(built.run.shards("embed"), built.run.shards("curate"), strict=True):
        keep = dict(
            zip(*(store.read(curate, "selection")[name].to_pylist() for name in ("uid", "keep")), strict=True)
        )
        table = store.read(embedded, "image_embeddings").to_pylist()
        chosen = (row for row in table if row["split"] == "train" and keep[row["uid"]])
        rows.extend(np.asarray(row["own/image"], np.float64) for row in chosen)
    stacked = np.stack(rows)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


@pytest.mark.flow
def test_statistics_and_plots_are_committed(finished: Dag) -> None:
    (shard,) = finished.run.shards("shift")
    statistics = json.loads(finished.store.path(shard, "statistics").read_text())
    assert {**statistics, "towers": ["own"], "shards": shard.facts["shards"]} == shard.facts
    assert len(shard.facts["shards"]) == NUM_SHARDS
    assert 0 <= statistics["text_to_cluster_accuracy"] <= 1
    assert statistics["within_cluster_variance"] <= statistics["global_variance"] * 1.01
    assert -1 <= statistics["two_sample_cosine_given_caption"] <= 1
    for name in ("occupancy", "spectrum", "cosines", "clusters"):
        with Image.open(io.BytesIO(finished.store.path(shard, f"plot_{name}").read_bytes())) as plot:
            assert min(plot.size) > 60
    assert len(finished.run.shards("embed")) == NUM_SHARDS


def test_micro_batches_are_refused_before_anything_starts(tmp_path: Path) -> None:
    built = dag(tmp_path / "runs", tower={**TOWER, "training": {**TRAINING, "micro_batch": 4}})
    run(built, "download")
    with pytest.raises(SettingsError, match="micro_batch"):
        run(built, "tower")


def test_the_default_recipe_section_is_valid() -> None:
    assert Recipe.model_validate({"name": "x", "tower": {}}).tower is not None
