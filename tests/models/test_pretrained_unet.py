"""A U-Net of Stable Diffusion's class under an image embedding: it starts as it was trained, and what it is not is refused."""

from typing import Any

import pytest
import torch

from corgi.diffusion.shifted import ShiftTable
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.pretrained_unet import PretrainedUNet, check_config
from corgi.names import UNetConfig
from tests.support.stable_unet import stable_config, stable_unet

pytestmark = pytest.mark.slow

SHAPE = (3, 4, 4)


@pytest.fixture(scope="module")
def original() -> Any:
    return stable_unet().eval()


@torch.no_grad()
def test_law_it_starts_as_the_unet_it_was_with_the_embeddings_tokens_as_its_words(original: Any) -> None:
    """At t it answers what diffusers' U-Net answers at t - 1, whose timesteps are counted from 0."""
    network = PretrainedUNet(SHAPE, stable_config(original), ShiftTable.ddpm(5), 4, knows_level=True).eval()
    network.unet.load_state_dict(original.state_dict())
    latent, embedding = torch.randn(3, 48), torch.randn(3, 5)
    t, kept = torch.tensor([1, 500, 1000]), torch.tensor([False, False, True])
    words = network.condition(embedding, kept)[1]
    assert words is not None
    assert words.shape == (3, 4, 12)
    expected = original(latent.view(3, *SHAPE), t - 1, words).sample.flatten(1)
    torch.testing.assert_close(network(latent, t, embedding, kept, level=torch.rand(3)), expected)


@torch.no_grad()
def test_a_dropped_embedding_is_the_learned_null(original: Any) -> None:
    torch.manual_seed(0)
    network = PretrainedUNet(SHAPE, stable_config(original), ShiftTable.ddpm(5)).eval()
    latent, t = torch.randn(2, 48), torch.tensor([7, 7])
    first, second = (network(latent, t, torch.randn(2, 5), torch.tensor([True, False])) for _ in range(2))
    assert ((first - second).abs().amax(1) > 1e-6).tolist() == [False, True]


REFUSED: list[tuple[UNetConfig, tuple[int, ...], str]] = [
    ({"_class_name": "UNet2DModel"}, SHAPE, "it is a UNet2DModel, not a UNet2DConditionModel"),
    ({"addition_embed_type": "text_time"}, SHAPE, "addition_embed_type=text_time requires inputs"),
    ({"encoder_hid_dim_type": "image_proj"}, SHAPE, "encoder_hid_dim_type=image_proj requires inputs"),
    ({"cross_attention_dim": [8, 16]}, SHAPE, "is not a single width"),
    ({}, (48,), "reads spatial latents"),
    ({}, (4, 4, 4), "it has 3 channels, but the latents have 4"),
    ({"in_channels": 9}, SHAPE, "it has 9 channels, but the latents have 3"),
    ({}, (3, 5, 5), "it halves a side to 1/2, which latents of 5 do not allow"),
]


@pytest.mark.parametrize(("changes", "shape", "words"), REFUSED, ids=str)
def test_another_kind_number_of_channels_or_side_is_refused(
    original: Any, changes: UNetConfig, shape: tuple[int, ...], words: str
) -> None:
    config = stable_config(original)
    check_config(config, SHAPE)
    with pytest.raises(ValueError, match=words.replace("(", ".")):
        check_config({**config, **changes}, shape)


def test_it_reads_no_neighbours(original: Any) -> None:
    sizes = NetworkSizes(SHAPE, 16, 1, neighbours=2, pretrained=stable_config(original))
    with pytest.raises(ValueError, match="reads neither neighbours nor"):
        NETWORKS["unet"](sizes, ShiftTable.ddpm(5))
