"""The U-Net of Kandinsky's kind: row by row, a dropped embedding is forgotten, zero at first, every weight learns."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.kandinsky_unet import KandinskyUNet
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.unet import UNetSizes

SHAPE, DIM = (2, 4, 4), 6
SIZES = UNetSizes((8, 16), heads=2, kandinsky=True)


def network(trained: bool = True) -> nn.Module:
    torch.manual_seed(0)
    table = ShiftTable.standardised(torch.randn(DIM), torch.rand(DIM) + 0.5)
    made = NETWORKS["unet"](NetworkSizes(SHAPE, 16, 1, SIZES), table)
    assert isinstance(made, KandinskyUNet)
    if trained:
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.2)
    return made.eval()


def inputs() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return {
        "latent": torch.randn(3, 32, generator=draws),
        "t": torch.tensor([1, 500, 1000]),
        "embedding": torch.randn(3, DIM, generator=draws),
        "drop_mask": torch.tensor([True, False, False]),
    }


@torch.no_grad()
def test_law_it_answers_row_by_row_and_forgets_a_dropped_embedding() -> None:
    made, given = network(), inputs()
    answer = made(**given)
    for row in range(3):
        alone = made(**{name: value[row : row + 1] for name, value in given.items()})
        torch.testing.assert_close(alone, answer[row : row + 1], rtol=1e-4, atol=1e-5)
    other = made(**{**given, "embedding": given["embedding"] + torch.arange(DIM)})
    assert ((other - answer).abs().amax(dim=1) > 1e-4).tolist() == [False, True, True]


def test_law_it_predicts_zero_at_first_and_every_weight_learns() -> None:
    made, given = network(trained=False).train(), inputs()
    assert not made(**given).any()
    optimizer, target = torch.optim.SGD(made.parameters(), 0.1), torch.randn(3, 32)
    for _ in range(3):
        optimizer.zero_grad()
        (made(**given) - target).square().mean().backward()
        optimizer.step()
    silent = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


@pytest.mark.parametrize("told", [{"knows_level": True}, {"neighbours": 2}, {"words": (3, 5)}])
def test_what_it_does_not_read_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not read a noise level, neighbours, words"):
        NETWORKS["unet"](NetworkSizes(SHAPE, 16, 1, SIZES, **told), ShiftTable.ddpm(DIM))


@pytest.mark.parametrize("shape", [(32,), (2, 3, 3)])
def test_a_latent_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="latent of shape"):
        KandinskyUNet(shape, SIZES, ShiftTable.ddpm(DIM))
