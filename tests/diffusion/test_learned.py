"""Laws of the learned (mu, Sigma) and its two losses (docs/method.md eq. 19, 20)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion.learned import LearnedShift, diversity_loss, gaussian_draws, similarity_loss
from corgi.diffusion.shifted import ShiftTable


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Seeded float64 noise."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def learned(k: int = 3, dim: int = 4) -> LearnedShift:
    """A shift that starts from a random table."""
    return LearnedShift(ShiftTable(normal(k, dim), normal(k, dim, seed=1).abs() + 0.1, count=torch.arange(k)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_learned_shift_starts_at_its_table_and_comes_back_from_its_state() -> None:
    """mean, scale and counts survive; one optimiser step of size lr moves a mean by 0.01 lr."""
    shift = learned()
    torch.testing.assert_close(shift.mean.detach(), normal(3, 4))
    torch.testing.assert_close(shift.scale.detach(), normal(3, 4, seed=1).abs() + 0.1)
    fresh = LearnedShift(ShiftTable.clusters(torch.zeros(3, 4).double(), torch.ones(3, 4).double()))
    fresh.load_state_dict(shift.state_dict())
    for name, value in shift.table().state_dict().items():
        assert torch.equal(fresh.table().state_dict()[name], value)
    before = shift.mean.detach().clone()
    with torch.no_grad():
        shift.stored_mean.add_(1.0)
    torch.testing.assert_close(shift.mean.detach() - before, torch.full((3, 4), 0.01).double())


def test_no_scale_falls_below_its_floor() -> None:
    """However far the weights go, the table stays one that can be sampled."""
    shift = learned()
    with torch.no_grad():
        shift.stored_log_scale.sub_(1e6)
    table = shift.table()
    assert bool((table.scale > 0).all())
    assert float(table.scale.max()) == pytest.approx(
        1e-3 * float((normal(3, 4, seed=1).abs() + 0.1).median()), rel=1e-6
    )


def test_eq_19_is_minus_the_weighted_mean_cosine_of_draws() -> None:
    """Against a numpy loop."""
    shift, z_0, eps = learned(), normal(5, 4, seed=2), normal(5, 16, 4, seed=3)
    cluster, weight = torch.tensor([0, 1, 2, 1, 0]), normal(5, seed=4).abs()
    draws = gaussian_draws(shift, cluster, eps)
    loss = similarity_loss(z_0, draws, weight)
    expected = 0.0
    for i in range(5):
        mean, scale = (value[cluster[i]].detach().numpy() for value in (shift.mean, shift.scale))
        cosines = [cosine(z_0[i].numpy(), mean + scale * eps[i, j].numpy()) for j in range(16)]
        expected -= float(weight[i]) * float(np.mean(cosines)) / 5
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


def test_eq_20_is_the_weighted_mean_cosine_between_chosen_means() -> None:
    """Against a numpy loop over pairs; a batch of one has none."""
    mean, weight = normal(5, 4), normal(5, seed=4).abs()
    expected = np.mean(
        [
            float(weight[i]) * np.mean([cosine(mean[i].numpy(), mean[j].numpy()) for j in range(5) if j != i])
            for i in range(5)
        ]
    )
    assert float(diversity_loss(mean, weight)) == pytest.approx(float(expected), rel=1e-12)
    assert float(diversity_loss(mean[:1], weight[:1])) == 0


def test_descending_both_losses_turns_means_to_the_data_and_keeps_them_apart() -> None:
    """Two orthogonal groups of data: the optimum of -cos(a) - sin(2a)/2 is a = 30 degrees outward."""
    torch.manual_seed(0)
    centre = torch.eye(2, 6)
    table = ShiftTable.clusters(torch.randn(2, 6) * 0.1 + centre.mean(0), torch.full((2, 6), 0.1))
    shift = LearnedShift(table)
    optimizer = torch.optim.Adam(shift.parameters(), 1.0)
    cluster, weight = torch.arange(64) % 2, torch.ones(64)
    for _ in range(200):
        z_0 = centre[cluster] + 0.05 * torch.randn(64, 6)
        draws = gaussian_draws(shift, cluster, torch.randn(64, 16, 6))
        loss = similarity_loss(z_0, draws, weight) + diversity_loss(shift.mean[cluster], weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unit = torch.nn.functional.normalize(shift.mean.detach(), dim=-1)
    torch.testing.assert_close((unit * centre).sum(-1), torch.full((2,), 0.866), rtol=0, atol=0.02)
    assert float(unit[0] @ unit[1]) == pytest.approx(-0.866, abs=0.03)
