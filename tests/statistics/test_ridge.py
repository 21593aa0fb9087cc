"""Ridge regression: the equations of its minimum, and what noise on the inputs is worth."""

import pytest
import torch

from corgi.statistics.ridge import ridge


def data(rows: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 5, generator=generator) + 2
    return x, torch.randn(rows, 3, generator=generator) + x[:, :3] - 1


@pytest.mark.law
@pytest.mark.parametrize("penalty", [0.0, 0.1, 3.0])
def test_law_no_direction_lowers_the_penalised_error(penalty: float) -> None:
    """The gradient at the answer is zero."""
    x, y = data()
    x, y = x.double(), y.double()
    weight, bias = (value.double().requires_grad_() for value in ridge(x, y, penalty))
    error = (y - x @ weight.mT - bias).square().sum(1).mean() + penalty * weight.square().sum()
    for gradient in torch.autograd.grad(error, (weight, bias)):
        assert gradient.abs().max() < 1e-5


def test_a_linear_law_is_found_and_a_large_penalty_leaves_the_mean() -> None:
    x, _ = data()
    weight, bias = ridge(x, x @ torch.arange(10.0).view(5, 2) + 7, 0.0)
    torch.testing.assert_close(weight, torch.arange(10.0).view(5, 2).mT, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bias, torch.full((2,), 7.0), rtol=1e-3, atol=1e-3)
    y = data()[1]
    weight, bias = ridge(x, y, 1e9)
    assert weight.abs().max() < 1e-6
    torch.testing.assert_close(bias, y.mean(0))


def test_noise_on_the_inputs_is_a_penalty() -> None:
    x, y = data()
    noisy = x.repeat(4000, 1) + 0.5 * torch.randn(
        4000 * len(x), 5, generator=torch.Generator().manual_seed(1)
    )
    found, _ = ridge(noisy, y.repeat(4000, 1), 0.0)
    torch.testing.assert_close(found, ridge(x, y, 0.25)[0], rtol=0.02, atol=0.01)
