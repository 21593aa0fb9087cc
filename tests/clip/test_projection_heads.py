"""The heads' objective: draws, dropout, retrieval, and the same layers as open_clip's."""

from pathlib import Path

import pytest
import torch

from corgi.clip import projection_heads
from corgi.clip.feature_rows import FeatureRows, FeatureSet
from corgi.clip.features import frozen_model
from corgi.clip.projection_heads import Heads, HeadsObjective, dropped, retrieval_figures
from corgi.feeding.noise import Noise
from corgi.settings.clip import TowerSettings
from corgi.tables.schema import Split
from corgi.tables.store import Store
from tests.support.frozen_features import commit_features
from tests.support.shared_ranks import on_each_rank
from tests.support.tables import Picture, tiny_run


@pytest.mark.law
def test_dropout_keeps_the_mean_and_depends_on_position_only() -> None:
    rows = torch.ones(64, 512)
    noise = Noise(3, torch.arange(64))
    once = dropped(rows, 0.3, noise, 1)
    assert (once == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert once.mean().item() == pytest.approx(1, abs=0.02)
    part = dropped(rows[40:], 0.3, Noise(3, torch.arange(40, 64)), 1)
    torch.testing.assert_close(once[40:], part, atol=0, rtol=0)
    assert dropped(rows, 0.0, noise, 1) is rows


def test_retrieval_is_measured_both_ways() -> None:
    eye = torch.eye(8)
    perfect = retrieval_figures(eye, eye)
    assert set(perfect) == {
        "pairs",
        *(f"{way}_r@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5)),
    }
    assert perfect["text_to_image_r@1"] == perfect["image_to_text_r@5"] == 1.0
    one_way = retrieval_figures(eye, torch.cat([eye[:1], eye[:1], eye[2:]]))
    assert one_way["text_to_image_r@1"] == 7 / 8
    assert one_way["image_to_text_r@1"] == 6 / 8


def test_each_worker_embeds_its_share_of_val_which_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [Picture(f"http://p.test/{n}", split="val" if n % 2 else "train") for n in range(40)]
    run = tiny_run(tmp_path, pictures)
    settings = TowerSettings(embed_dim=8).model_dump(mode="json")
    features = FeatureSet.read(run.store, commit_features(run))
    made = HeadsObjective(str(tmp_path), **features.as_arguments(), settings=settings)
    torch.manual_seed(0)
    model = made.model().eval()
    alone = made.evaluate(model)
    assert alone["val/pairs"] == 20
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("val was read again"))
    shares: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: shares.append(len(inputs[0])))
    for figures in on_each_rank(3, lambda: made.evaluate(model)):
        assert figures == alone
    assert sorted(shares) == [6, 7, 7]


def test_val_is_read_until_there_are_enough_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(f"http://p.test/{n}", split="val") for n in range(40)]
    run = tiny_run(tmp_path, pictures, num_shards=4)
    features = FeatureSet.read(run.store, commit_features(run))
    rows = FeatureRows(str(tmp_path), features.shards, Split.VAL)
    monkeypatch.setattr(projection_heads, "MAX_VAL_PAIRS", rows.counts[0] + 1)
    loaded: list[int] = []
    load = rows.load
    monkeypatch.setattr(rows, "load", lambda unit: (loaded.append(unit), load(unit))[1])
    images, texts = projection_heads.one_a_group(rows)
    assert len(images) == len(texts) == rows.counts[0] + 1
    assert loaded == [0, 1]


def test_heads_compute_what_the_assembled_open_clip_model_computes() -> None:
    settings = TowerSettings(image_size=64, embed_dim=32)
    model, _, tokenizer = frozen_model(settings)
    torch.manual_seed(1)
    heads = Heads(32).eval()
    mean, scale = torch.randn(1280), torch.rand(1280) + 0.1
    heads.put_into(model, mean, scale)
    model.eval()
    pixels, ids = torch.randn(2, 3, 64, 64), tokenizer(["a dog", "two cats"])
    with torch.no_grad():
        image = model.get_submodule("visual.trunk")(pixels)
        text_tower = model.get_submodule("text")
        mask = (ids != 0).long()
        hidden = text_tower.get_submodule("transformer")(input_ids=ids, attention_mask=mask).last_hidden_state
        text = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        expected = heads((image - mean) / scale, text)
        found = model(pixels, ids)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
