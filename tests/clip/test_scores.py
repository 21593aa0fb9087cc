"""Heads: the layer's own arithmetic, and one line for files and towers that do not fit."""

from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from corgi.clip.scores import ACTIVATIONS, Head
from corgi.names import ActivationName
from corgi.settings.clip import HeadRef
from corgi.settings.errors import InputError, SettingsError
from corgi.settings.recipe import Recipe, load


def head(path, weight, bias=None, **values) -> Head:
    tensors = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    save_file(tensors, path)
    return Head(HeadRef(name="aesthetic", tower="b32", file=str(path), **values))


@pytest.mark.law
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_scores_are_those_of_the_linear_layer(tmp_path, activation) -> None:
    layer = torch.nn.Linear(6, 1)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    made = head(tmp_path / "h.safetensors", weight, bias, activation=activation)
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    expected = layer(torch.from_numpy(rows))[:, 0].detach()
    expected = torch.sigmoid(expected) if activation == "sigmoid" else expected
    np.testing.assert_allclose(made.scores(rows), expected.numpy(), atol=1e-6)
    far = head(tmp_path / "far.safetensors", np.full(6, 1e4, np.float32), activation="sigmoid")
    assert far.scores(np.ones((1, 6)))[0] == 1


def test_what_does_not_fit_is_one_line(tmp_path) -> None:
    good = head(tmp_path / "g.safetensors", np.ones((1, 4), np.float32))
    good.check(4)
    with pytest.raises(InputError, match="takes 4 dimensions, but vectors of tower b32 have 8"):
        good.check(8)
    (tmp_path / "no.safetensors").write_bytes(b"no")
    save_file({"other": np.ones(3)}, tmp_path / "other.safetensors")
    for name in ("no.safetensors", "other.safetensors", "missing.safetensors"):
        with pytest.raises(InputError, match="cannot be used") as caught:
            Head(HeadRef(name="a", tower="b32", file=str(tmp_path / name)))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="NaN"):
        head(tmp_path / "nan.safetensors", np.full(4, np.nan, np.float32))


def test_a_head_of_an_unknown_tower_and_two_of_one_name_are_refused(tmp_path) -> None:
    tower = {"name": "b", "model": "RN50", "pretrained": "random"}
    path = tmp_path / "r.yaml"
    for embed, word in (
        ({"towers": [tower], "heads": [{"name": "a", "tower": "c", "file": "f"}]}, "name tower 'c'"),
        ({"towers": [tower], "tokens": [{"name": "a", "model": "tower:c"}]}, "name tower 'c'"),
        ({"towers": [tower, tower]}, "two towers have the same name"),
        ({"towers": [{**tower, "pretrained": "trained"}]}, "no tower section trains one"),
    ):
        path.write_text(f"name: r\nembed: {embed}\n".replace("'", '"'))
        with pytest.raises(SettingsError, match=word):
            load(path).require(["embed"])
    assert Recipe.model_validate({"name": "r", "embed": {"towers": [tower]}}).embed.heads == ()


def test_settings_offer_the_activations_that_are_registered() -> None:
    assert tuple(ACTIVATIONS) == get_args(ActivationName)
