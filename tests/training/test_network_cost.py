"""The cost that --plan prints of a decoder or an upsampler is that of the network that is built."""

from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from corgi.clip.projection_heads import Heads
from corgi.diffusion.shifted import ShiftTable
from corgi.names import NetworkName
from corgi.settings.clip import TowerSettings
from corgi.settings.decoder import DecoderSettings, DenoiserSettings, UpsamplerSettings
from corgi.settings.recipe import Recipe, load
from corgi.training.cost import decoder_cost, heads_cost, network_lines, upsampler_cost
from corgi.training.decoder_network import network_of
from corgi.training.network_cost import (
    IMAGE_FEATURES,
    NETWORK_COUNTS,
    TEXT_FEATURES,
    latent_shape,
    network_count,
)

DIM, SHAPE = 12, (4, 8, 8)
KINDS: list[dict[str, Any]] = [
    {"network": "mlp", "width": 32, "depth": 3},
    {"network": "dit", "width": 32, "depth": 2, "dit": {"heads": 4, "patch": 2}},
    {"network": "dit", "width": 32, "depth": 1, "dit": {"patch": 4}, "neighbours": 2},
    {"network": "dit", "width": 32, "depth": 1, "dit": {"patch": 4}, "regression": True},
    {"network": "unet", "unet": {"widths": [16, 32], "tokens": 3}},
    {"network": "unet", "unet": {"widths": [16, 32]}, "regression": True, "neighbours": 1},
    {"network": "unet", "unet": {"widths": [8, 16, 24], "layers": 3, "attention": [0, 2], "heads": 2}},
    {"network": "unet", "unet": {"widths": [16, 32], "kandinsky": True}},
    {"network": "unet", "unet": {"widths": [16], "attention": []}, "conditioning_noise": 0.1, "noise_level_known": True},
    {"network": "unet", "unet": {"widths": [16, 32]}, "num_text_tokens": 5, "encoding_dim": 7},
    {"network": "unet", "unet": {"widths": [16, 16], "attention": [], "middle_attention": False}},
]  # fmt: skip
UPSAMPLERS: list[dict[str, Any]] = [
    {"unet": {"widths": [8, 16], "attention": [], "middle_attention": False}},
    {"network": "dit", "width": 16, "depth": 1, "dit": {"heads": 2}, "crop": 0},
]


def check(settings: DenoiserSettings, shape: tuple[int, ...]) -> None:
    """Compare with the weights of the network, and with what torch counts of one sample, on the meta device."""
    with torch.device("meta"), torch.no_grad():
        network = network_of(settings, shape, ShiftTable.ddpm(DIM)).eval()
        dim = torch.Size(shape).numel()
        seen: dict[str, torch.Tensor] = {}
        if isinstance(settings, DecoderSettings) and settings.neighbours:
            seen["neighbours"] = torch.empty(1, settings.neighbours, dim)
        if isinstance(settings, DecoderSettings) and settings.num_text_tokens:
            seen["words"] = torch.empty(1, settings.num_text_tokens, settings.encoding_dim)
        if isinstance(settings, UpsamplerSettings):
            seen["low"] = torch.empty(1, dim)
        t, dropped = torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, dim), t, torch.empty(1, DIM), dropped, **seen)
    found = network_count(settings, shape, DIM)
    assert found.parameters == sum(value.numel() for value in network.parameters())
    assert 2 * found.products == counter.get_total_flops()


@pytest.mark.parametrize("values", KINDS, ids=str)
def test_parameters_and_flops_are_those_of_the_network(values: dict[str, Any]) -> None:
    check(DecoderSettings.model_validate(values), SHAPE)


def test_the_heads_of_an_own_tower_are_counted() -> None:
    with torch.device("meta"), torch.no_grad():
        heads = Heads(48)
        with FlopCounterMode(display=False) as counter:
            heads(torch.empty(1, IMAGE_FEATURES), torch.empty(1, TEXT_FEATURES))
    cost = heads_cost(TowerSettings(embed_dim=48))
    assert cost.parameters == sum(value.numel() for value in heads.parameters())
    assert cost.forward_flops == counter.get_total_flops()


@pytest.mark.parametrize("values", UPSAMPLERS, ids=str)
def test_those_of_an_upsampler_are_too(values: dict[str, Any]) -> None:
    check(UpsamplerSettings.model_validate({"low_side": 4, "side": 8, "crop": 8, **values}), (3, 8, 8))


def test_every_network_has_its_count() -> None:
    assert set(NETWORK_COUNTS) == set(get_args(NetworkName))


def test_the_latents_counted_with_are_those_of_their_kind() -> None:
    def shape(**values: Any) -> tuple[int, ...] | None:
        return latent_shape(Recipe.model_validate({"name": "a", "autoencoder": values}).autoencoder)

    assert shape() == (384,)
    assert shape(kind="pixels", image_size=32) == (3, 32, 32)
    assert shape(kind="kl", image_size=256) == (8, 32, 32)
    assert shape(kind="vq", image_size=64) == (4, 8, 8)
    assert shape(kind="pretrained", pretrained={"path": "x"}) is None


@pytest.mark.parametrize("name", ["laion-b32", "corgi", "cascade"])
def test_recipes_for_a_cluster_have_decoders_worth_one_and_say_what_they_cost(name: str) -> None:
    """Spatial networks of at least a hundred million parameters; hours and memory for every training of pictures."""
    recipe = load(f"pipelines/recipes/{name}.yaml", ["plan.input=list.parquet"])
    costs = {
        "decoder": decoder_cost(recipe),
        **{step: upsampler_cost(recipe, step) for step in recipe.upsamplers},
    }
    for stage, cost in costs.items():
        assert cost is not None
        settings = getattr(recipe, stage)
        assert settings.network != "mlp"
        if stage != "second_upsampler":
            assert cost.parameters > 1e8
        said = network_lines(settings, cost)
        assert "parameters" in said[0]
        assert "ZeRO 0 / 1 / 2 / 3" in said[1]
        assert "H100" in said[1]


def test_what_is_not_known_yet_is_said() -> None:
    asked = {"kind": "pretrained", "pretrained": {"path": "x"}}
    decoder = {"network": "unet", "training": {"use_gpu": True}}
    recipe = Recipe.model_validate({"name": "a", "autoencoder": asked, "decoder": decoder})
    assert network_lines(recipe.decoder, decoder_cost(recipe))[0].startswith("cost unknown")
    assert network_lines(DecoderSettings(), None) == []
