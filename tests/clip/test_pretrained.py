"""The path of a pretrained tag, with the file its download would give: weights, preprocessing and vectors."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from corgi.clip.towers import load_tower
from corgi.settings.clip import TowerRef
from corgi.settings.recipe import load
from tests.support.pretrained import few_batches

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"


def test_the_laion_recipe_embeds_a_few_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = load(RECIPES / "laion-b32.yaml").embed.towers
    assert (ref.model, ref.pretrained) == ("ViT-B-32", "laion2b_s34b_b79k")
    few_batches(ref, tmp_path, monkeypatch, "fp32")


def test_a_hub_folder_given_as_a_local_one_is_loaded(tmp_path: Path) -> None:
    """`local-dir:` holds open_clip_config.json and the checkpoint, as a hub id does."""
    config = tmp_path / "open_clip_config.json"
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    half = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": half}))
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(model))
    random = load_tower(TowerRef(name="t", model="t", pretrained="random", config=str(plain)))
    torch.save(random.model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    ref = TowerRef(name="t", model=f"local-dir:{tmp_path}", pretrained="open_clip_pytorch_model.bin")
    tower = load_tower(ref)
    assert (tower.dim, tower.image_size) == (16, 32)
    torch.testing.assert_close(tower.texts(["dog"])[0], random.texts(["dog"])[0], atol=1e-6, rtol=0)
    grey = tower.normalised(tower.preprocess(Image.new("RGB", (40, 40), (255, 255, 255)))[None])
    assert float(grey.max()) == 1.0
