"""Towers and their heads compute wholly on their device, on fake CUDA tensors."""

from pathlib import Path

import pytest
import torch

from corgi.clip import projection_heads
from corgi.clip.feature_rows import FeatureSet
from corgi.clip.projection_heads import HeadsObjective
from corgi.clip.towers import Tower, build_model
from corgi.feeding.noise import Noise
from corgi.settings.clip import TowerRef, TowerSettings
from tests.support.fake_cuda import CUDA, fake_cuda, to_cuda
from tests.support.frozen_features import commit_features
from tests.support.tables import Picture, tiny_run

CONFIG = (
    '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
    ' "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}}'
)


def test_a_tower_embeds_on_its_device_and_moves_only_what_comes_in_and_goes_out(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(CONFIG)
    model, preprocess, tokenizer = build_model(
        TowerRef(name="tiny", model="tiny", pretrained="random", config=str(path))
    )
    with fake_cuda() as watch:
        tower = Tower("tiny", to_cuda(model), preprocess, tokenizer)
        pixels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8, device=CUDA)
        watch.copies.clear()
        tower.pixels(pixels)
        assert watch.copies.total() == 1, watch.copies  # the vectors, to the host
        tower.texts(["a dog", "two cats"])
        assert watch.copies.total() == 3, watch.copies  # the tokens, and their vectors
    assert watch.syncs.total() == 0, watch.syncs


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_loss_of_a_towers_heads_never_waits_and_val_is_embedded_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    run = tiny_run(
        tmp_path, [Picture(f"http://p.test/{n}", split="val" if n % 2 else "train") for n in range(12)]
    )
    held = FeatureSet.read(run.store, commit_features(run))
    settings = TowerSettings(embed_dim=8, dropout=dropout).model_dump(mode="json")
    made = HeadsObjective(str(tmp_path), **held.as_arguments(), settings=settings)
    columns = {name: torch.from_numpy(values) for name, values in made.rows().load(0).items()}
    seen: list[str] = []
    monkeypatch.setattr(
        projection_heads,
        "retrieval_figures",
        lambda *found: {"devices": float(seen.extend(one.device.type for one in found) is None)},
    )
    positions = torch.arange(len(columns["image"]))
    with fake_cuda() as watch, torch.no_grad():
        made.place(CUDA)
        model = to_cuda(made.model())
        batch = {name: values.to(CUDA) for name, values in columns.items()}
        watch.syncs.clear()
        watch.copies.clear()
        loss, metrics = made.loss(model, batch, Noise(1, positions, CUDA))
        assert watch.syncs.total() == 0, watch.syncs
        assert watch.copies.total() <= 1, watch.copies
        assert made.evaluate(model)
    assert {value.device.type for value in (loss, *metrics.values())} == {"cuda"}
    assert set(seen) == {"cuda"}
