"""The whole stage for each latent space: its model shard, the latents of every kept picture, and a decoder that takes them.

Trainings run in this process: what Ray Train does with them is shown elsewhere.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file

from corgi.feeding.pack import SPLITS, sizes_of
from corgi.feeding.pictures import square_pictures
from corgi.flow.context import Context
from corgi.flow.dag import Dag, open_dag
from corgi.flow.executor import in_process
from corgi.latents.stages import Autoencoder
from corgi.names import TRAINED_SPACES, LatentSpaceName
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import SELECTION, Reason, Split
from corgi.tables.stage_index import row_groups
from corgi.tables.store import ShardTask
from corgi.training.autoencoder import load_autoencoder
from tests.latents.test_pretrained import MODELS, folder_of
from tests.support import drawn
from tests.support.stages import stage
from tests.support.tiny_towers import tiny_tower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIDE = 16
TRAINING = {"num_steps": 6, "global_batch": 8, "ema_decay": 0.5, "checkpoint_every_steps": 3, "lr": 1e-3}
KINDS: dict[LatentSpaceName, tuple[int, ...]] = {
    "linear": (12,),
    "kl": (2, 4, 4),
    "vq": (2, 4, 4),
    "pretrained": (4, 8, 8),
    "pixels": (3, 16, 16),
}
"""Each kind with the latent shape of the settings below."""


def curate(context: Context) -> list[ShardTask]:
    """Stand in for curate: every tenth picture is dropped."""
    tasks = []
    for images in context.store.shards(context.inputs["download"]):
        task = context.task(images.shard, inputs={"download": [images]})
        tasks.append(task)
        if context.pending([task]):
            uids = context.store.read(images, "images", ["uid"])["uid"].to_pylist()
            rows = [
                {
                    "uid": uid,
                    "keep": n % 10 > 0,
                    "reason": None if n % 10 else Reason.LOW_SCORE,
                    "captioned": None,
                }
                for n, uid in enumerate(uids)
            ]
            kept = sum(row["keep"] for row in rows)
            counts = RowCounts(rows_in=len(rows), kept=kept, rejected={Reason.LOW_SCORE: len(rows) - kept})
            with context.store.attempt(task) as attempt:
                attempt.write_table("selection", pa.Table.from_pylist(rows, schema=SELECTION))
                attempt.commit(counts)
    return tasks


def dag(root: Path, kind: LatentSpaceName, **changes: Any) -> Dag:
    """Return download, curate and autoencoder of a recipe; the tower of the perceptual loss is untrained."""
    folder = root / "given"
    if not folder.exists():
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        small: Any = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
        tiny = AutoencoderTiny(**small, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
        tiny.save_pretrained(folder / "vae")
    tower = tiny_tower(folder, "timm").model_dump(mode="json")
    settings = {
        "kind": kind,
        "image_size": SIDE,
        "latent_dim": 12,
        "conv": {"widths": [8, 8], "channels": 2, "perceptual_stages": 2},
        "quantiser": {"levels": [5, 4], "min_code_use": 0},
        "pretrained": {"path": str(folder / "vae")},
        "adversarial": {"weight": 0.1 if kind == "vq" else 0.0, "start": 0.5, "widths": [8, 8]},
        "training": TRAINING,
        **changes,
    }
    recipe = Recipe.model_validate(
        {
            "name": kind,
            "root": str(root / "runs"),
            "tracking": {"mode": "disabled"},
            "embed": {"towers": [tower]},
            "autoencoder": settings,
        }
    )
    stages = [
        stage("download", drawn.download),
        stage("curate", curate, ("download",)),
        Autoencoder.of(recipe),
    ]
    return open_dag(stages, recipe)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[LatentSpaceName, Dag]:
    """Every kind over one root."""
    root = tmp_path_factory.mktemp("spaces")
    dags: dict[LatentSpaceName, Dag] = {kind: dag(root, kind) for kind in KINDS}
    with in_process():
        for made in dags.values():
            drawn.run(made, "autoencoder")
    return dags


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_those_of_the_kept_pictures_in_the_order_of_the_training_table(
    finished: dict[LatentSpaceName, Dag], kind: LatentSpaceName
) -> None:
    run = finished[kind].run
    model, *shards = run.shards("autoencoder")
    space = load_autoencoder(run.store, model)
    assert tuple(model.facts["latent_shape"]) == space.latent_shape == KINDS[kind]
    assert model.facts["kind"] == kind
    total = 0
    for shard, images, selection in zip(shards, run.shards("download"), run.shards("curate"), strict=True):
        assert shard.facts.items() >= {"autoencoder": model.digest, "enlarged": 0}.items()
        table, groups = run.store.read(shard, "latents"), row_groups(shard, "latents")
        assert groups is not None
        assert list(groups.rows) == sizes_of(table["split"].to_pylist())
        keep = [row["uid"] for row in run.store.read(selection, "selection").to_pylist() if row["keep"]]
        stored = run.store.read(images, "images", ["uid", "split", "image"]).to_pylist()
        by_uid = {row["uid"]: row for row in stored}
        uids = sorted(keep, key=lambda uid: (SPLITS.index(Split(by_uid[uid]["split"])), uid))
        assert table["uid"].to_pylist() == uids
        pictures = pa.chunked_array([[by_uid[uid]["image"] for uid in uids]], pa.binary())
        with torch.no_grad():
            expected = space.encode(square_pictures(pictures, SIDE))
        found = np.array(table["latent"].to_pylist(), np.float32)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-2)
        total += len(keep)
    assert total == run.stages()["curate"].rows.kept


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "linear"])
def test_the_model_shard_shows_val_pictures_and_what_comes_back(
    finished: dict[LatentSpaceName, Dag], kind: LatentSpaceName
) -> None:
    model = finished[kind].run.shards("autoencoder")[0]
    tables = {entry.table for entry in model.files}
    assert tables >= {"autoencoder", "config", "reconstructions"}
    assert ("metrics" in tables) is (kind in TRAINED_SPACES)
    assert model.facts["val"]["psnr"] > 0
    if kind == "vq":
        assert 0 < model.facts["val"]["code_use"] <= 1
    if kind in TRAINED_SPACES:
        assert model.facts["steps"] == TRAINING["num_steps"]
        assert model.facts["val"]["perceptual"] > 0
        assert model.facts["val"]["rfid"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_done_work_is_recognised_and_settings_of_other_kinds_do_not_matter_to_the_linear_one(
    finished: dict[LatentSpaceName, Dag], kind: LatentSpaceName
) -> None:
    root = finished[kind].run.folder.parent.parent
    with in_process():
        assert drawn.run(dag(root, kind), "autoencoder") == 0
        assert drawn.run(dag(root, kind, num_actors=3, encode_batch=7), "autoencoder") == 0


@pytest.mark.parametrize("zero_stage", [1, 2])
def test_an_adversarial_training_takes_the_same_steps_at_every_zero_stage_it_may_have(
    tmp_path: Path, zero_stage: int
) -> None:
    """Before its first step the discriminator has no gradient at all."""
    found = []
    for stage_of_zero in (0, zero_stage):
        training = {**TRAINING, "precision": "fp32", "zero_stage": stage_of_zero}
        made = dag(tmp_path / str(stage_of_zero), "vq", training=training)
        with in_process():
            drawn.run(made, "autoencoder")
        model = made.run.shards("autoencoder")[0]
        assert model.facts["skipped_steps"] == 0
        found.append(load_file(made.run.store.path(model, "autoencoder")))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4)


def test_another_file_in_the_pretrained_folder_is_another_space(
    finished: dict[LatentSpaceName, Dag], tmp_path: Path
) -> None:
    recipe = dag(tmp_path, "pretrained").recipe
    before = Autoencoder.of(recipe).fingerprint(recipe)
    assert before
    (tmp_path / "given" / "vae" / "config.json").write_text("{}")
    assert Autoencoder.of(recipe).fingerprint(recipe) != before


def test_each_class_of_diffusers_becomes_a_space(tmp_path: Path) -> None:
    """From a folder that save_pretrained wrote, which the space needs no more."""
    for name in MODELS:
        folder = folder_of(tmp_path / "folders" / name, name).path
        made = dag(tmp_path, "pretrained", pretrained={"path": folder})
        with in_process():
            drawn.run(made, "autoencoder")
        shutil.rmtree(folder)
        model, *shards = made.run.shards("autoencoder")
        space = load_autoencoder(made.run.store, model)
        assert space.latent_shape == (2, SIDE // 2, SIDE // 2)
        latents = made.run.store.read(shards[0], "latents")["latent"].to_pylist()
        with torch.no_grad():
            assert space.decode(torch.tensor(latents[:2])).shape == (2, 3, SIDE, SIDE)


def test_a_folder_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    with in_process(), pytest.raises(InputError, match=r"no config\.json"):
        drawn.run(dag(tmp_path, "pretrained", pretrained={"path": str(tmp_path)}), "autoencoder")


def test_a_training_that_ends_with_a_collapsed_codebook_commits_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collapsed = dag(tmp_path, "vq", quantiser={"levels": [5, 4], "min_code_use": 0.3})
    weights = tmp_path / "weights.safetensors"
    monkeypatch.setattr("corgi.latents.stage.train", lambda trainings, recipe: None)
    monkeypatch.setattr("corgi.latents.stage.final_weights", lambda training: weights)
    monkeypatch.setattr(
        "corgi.latents.stage.final_facts", lambda training: {"steps": 6, "val": {"code_use": 0.2}}
    )
    with in_process(), pytest.raises(InputError, match="the codebook collapsed"):
        drawn.run(collapsed, "autoencoder")
    assert "autoencoder" not in collapsed.run.stages()


def test_a_learned_codebook_is_trained_and_committed_and_one_that_collapsed_leaves_its_checkpoints(
    tmp_path: Path,
) -> None:
    asked = {"codebook": "ema", "num_codes": 16}
    good = dag(tmp_path / "good", "vq", quantiser={**asked, "min_code_use": 0.05})
    collapsed = dag(
        tmp_path / "bad",
        "vq",
        quantiser={**asked, "min_code_use": 1, "revive_below": 0},
        conv={"widths": [8, 8], "channels": 2, "perceptual_weight": 0},
    )
    with in_process():
        drawn.run(good, "autoencoder")
        with pytest.raises(InputError, match=r"the codebook collapsed.*of its 16 codes.*num_codes") as caught:
            drawn.run(collapsed, "autoencoder")
    assert "\n" not in str(caught.value)
    model = good.run.shards("autoencoder")[0]
    space = load_autoencoder(good.run.store, model)
    assert tuple(model.facts["latent_shape"]) == space.latent_shape == (2, 4, 4)
    assert 0.05 < model.facts["val"]["code_use"] <= 1
    state = load_file(good.run.store.path(model, "autoencoder"))
    assert state["codec.quantiser.codebook"].shape == (16, 2)
    assert not any("learner" in name for name in state)
    assert "autoencoder" not in collapsed.run.stages()
    kept = list(collapsed.run.folder.parent.rglob("checkpoints/step-*/COMMITTED.json"))
    assert kept


def test_how_many_pictures_are_encoded_at_once_changes_no_figure(tmp_path: Path) -> None:
    found = []
    for batch in (1, 64):
        made = dag(tmp_path / str(batch), "pretrained", encode_batch=batch)
        with in_process():
            drawn.run(made, "autoencoder")
        found.append(made.run.shards("autoencoder")[0].facts["val"]["psnr"])
    assert found[0] == pytest.approx(found[1], abs=2e-3)


def test_smaller_pictures_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = dag(tmp_path, "pixels", image_size=96)
    with in_process():
        drawn.run(large, "autoencoder")
    _, *shards = large.run.shards("autoencoder")
    kept = sum(shard.rows.kept for shard in shards)
    assert [shard.facts["enlarged"] for shard in shards] == [shard.rows.kept for shard in shards]
    assert f"{kept} of {kept} pictures are stored smaller than image_size=96" in capsys.readouterr().out
