"""The cost that --plan prints of an autoencoder is that of the network that is built."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from corgi.latents.cost import LATENT_BYTES, autoencoder_cost, encoder_flops, lines
from corgi.latents.objective import conv_config
from corgi.models.conv_codec import ConvCodec
from corgi.settings.models import AutoencoderSettings
from corgi.settings.recipe import Recipe


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "kl"},
        {"kind": "kl", "image_size": 32, "conv": {"widths": [16, 24], "blocks": 2, "channels": 5}},
        {"kind": "vq", "conv": {"widths": [8]}},
    ],
)
@torch.no_grad()
def test_parameters_and_flops_are_those_of_the_network(values: dict[str, Any]) -> None:
    settings = AutoencoderSettings.model_validate(values)
    codec, side = ConvCodec(conv_config(settings)), settings.image_size
    cost = autoencoder_cost(settings)
    assert cost.parameters == sum(value.numel() for value in codec.parameters())
    with FlopCounterMode(display=False) as counter:
        codec(torch.zeros(1, 3, side, side), torch.zeros(1, *codec.latent_shape(side)))
    assert cost.forward_flops == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        codec.encode(torch.zeros(1, 3, side, side))
    assert encoder_flops(settings) == counter.get_total_flops()


def test_a_plan_has_lines_for_a_training_on_gpus_only() -> None:
    def planned(**values: Any) -> list[str]:
        return lines(Recipe.model_validate({"name": "a", "autoencoder": values}))

    assert planned() == planned(kind="kl") == planned(training={"use_gpu": True}) == []
    found = planned(kind="kl", training={"use_gpu": True})
    assert "parameters" in found[0]
    assert "perceptual loss" in found[-1]
    made = planned(kind="kl", image_size=64, gpus_per_actor=1)
    assert len(made) == 1
    assert made[0].startswith(f"latents: {LATENT_BYTES * 8 * 8 * 8 / 1e3:.1f} GB per million pictures, ")
