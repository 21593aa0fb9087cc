"""Finite scalar quantisation: each channel takes its number of values, whatever it is given."""

import pytest
import torch

from corgi.models.quantiser import FiniteScalarQuantiser

LEVELS = [(2,), (3,), (8, 5, 5, 5), (4, 7)]


@pytest.mark.law
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_law_the_codes_are_the_grid(levels: tuple[int, ...]) -> None:
    quantiser = FiniteScalarQuantiser(levels)
    raw = 1.5 * torch.randn(40_000, len(levels), 1, 1, generator=torch.Generator().manual_seed(0))
    bounded = quantiser.bound(raw)
    values = quantiser.rounded(bounded)
    for channel, count in enumerate(levels):
        assert len(values[:, channel].unique()) == count
    codes = quantiser.codes(bounded)
    assert codes.shape == (40_000, 1, 1)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < quantiser.num_codes
    distinct = torch.unique(values.flatten(1), dim=0)
    assert len(codes.unique()) == len(distinct) > 0.9 * quantiser.num_codes


@pytest.mark.law
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_law_rounding_is_idempotent_and_clamps_what_a_sampler_made(levels: tuple[int, ...]) -> None:
    quantiser = FiniteScalarQuantiser(levels)
    anything = 3 * torch.randn(500, len(levels), 2, 2, generator=torch.Generator().manual_seed(1))
    once = quantiser.rounded(anything)
    torch.testing.assert_close(quantiser.rounded(once), once)
    assert float(once.abs().max()) <= 1
    assert int(quantiser.codes(anything).max()) < quantiser.num_codes


def test_the_gradient_passes_through_the_rounding() -> None:
    quantiser = FiniteScalarQuantiser((5, 4))
    latents = torch.randn(3, 2, 2, 2, requires_grad=True)
    quantiser.rounded(latents).sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, torch.ones_like(latents))
