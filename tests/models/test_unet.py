"""The U-Net of the decoder: its size, and what of the picture and the embedding reaches where."""

import pytest
import torch
from torch import nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.unet import UNet, UNetSizes

SHAPE = (2, 4, 4)


@pytest.mark.slow
def test_the_default_is_the_size_of_the_demo() -> None:
    """Widths 96 and 192 on latents of 8 x 8 x 8."""
    with torch.device("meta"):
        network = UNet((8, 8, 8), UNetSizes(), ShiftTable.ddpm(256))
    assert 6e6 < sum(parameter.numel() for parameter in network.parameters()) < 12e6


@pytest.mark.parametrize("attention", [(), (0,), (0, 1, 2)])
@torch.no_grad()
def test_every_choice_of_levels_builds_and_sees_the_whole_picture(attention: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sizes = UNetSizes((16, 16, 16), 2, attention, heads=2, tokens=2)
    network = UNet(SHAPE, sizes, ShiftTable.ddpm(4)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    latent, rest = torch.randn(1, 32), (torch.tensor([7]), torch.randn(1, 4), torch.tensor([False]))
    touched = latent.clone()
    touched[0, 0] += 1  # one corner of one channel
    change = (network(touched, *rest) - network(latent, *rest)).view(*SHAPE).abs().amax(0)
    assert bool((change > 0).all())


@torch.no_grad()
def test_the_embedding_speaks_through_tokens_and_through_the_time() -> None:
    """Either way alone is heard."""
    torch.manual_seed(0)
    network = UNet(SHAPE, UNetSizes((8, 16), heads=2), ShiftTable.ddpm(4)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    given = (torch.randn(1, 32), torch.tensor([7]))
    first, second, kept = torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([False])
    for silenced in (network.condition.vector, network.condition.tokens):
        held = silenced.weight.clone()
        silenced.weight.zero_()
        assert not torch.allclose(network(*given, first, kept), network(*given, second, kept), atol=1e-5)
        silenced.weight.copy_(held)


@torch.no_grad()
def test_dropout_is_of_training_alone() -> None:
    torch.manual_seed(0)
    network = UNet(SHAPE, UNetSizes((8, 16), heads=2, dropout=0.5), ShiftTable.ddpm(4))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    given = (torch.randn(1, 32), torch.tensor([7]), torch.randn(1, 4), torch.tensor([False]))
    assert not torch.equal(network(*given), network(*given))
    network.eval()
    assert torch.equal(network(*given), network(*given))
