"""What a decoder of pseudo text is conditioned on, and how it is standardised."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from corgi.feeding.noise import Noise
from corgi.training import decoder
from corgi.training.pseudo_text import PSEUDO_TEXT, condition, moments

DIM = 48


def units(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(rows, DIM, generator=generator) + 0.5 * torch.ones(DIM), dim=-1)


def test_its_draw_is_no_other_draw_of_the_decoder() -> None:
    names = ("TIMESTEP", "EPS", "DROP", "PERTURBATION", "LEVEL")
    assert PSEUDO_TEXT not in [getattr(decoder, name) for name in names]


def test_law_xi_zero_is_the_embedding_itself() -> None:
    z = units(5)
    assert condition(z, Noise(0, torch.arange(5)), 0.0) is z
    mean, std = z.mean(0).numpy(), z.std(0).numpy()
    for found, given in zip(moments(mean, std, 0.0), (mean, std), strict=True):
        np.testing.assert_allclose(found, given)


@pytest.mark.parametrize("xi", [0.5, 2.65])
def test_law_the_moments_are_those_of_the_condition(xi: float) -> None:
    z = units(20_000)
    h = condition(z, Noise(3, torch.arange(len(z))), xi).numpy()
    mean, std = moments(z.mean(0).numpy(), z.std(0).numpy(), xi)
    np.testing.assert_allclose(h.mean(0), mean, atol=0.006)
    np.testing.assert_allclose(h.std(0), std, rtol=0.05)


def test_law_a_row_depends_on_its_own_place_alone() -> None:
    z = units(9)
    whole, part = (
        condition(z, Noise(1, torch.arange(9)), 2.0),
        condition(z[4:], Noise(1, torch.arange(4, 9)), 2.0),
    )
    torch.testing.assert_close(whole[4:], part)
