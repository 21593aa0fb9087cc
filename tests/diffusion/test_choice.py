"""Laws of the choice of a cluster (docs/method.md eq. 11, 21, 22)."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion.choice import ClusterChoice, choice_places, draw_index, mean_direction
from corgi.diffusion.philox import normals
from corgi.diffusion.shifted import ShiftTable, choose_cluster
from tests.support.shapes import REFUSED


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Seeded float64 noise."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def some_table(k: int = 5, dim: int = 3, scale: float = 0.5) -> ShiftTable:
    """Isotropic clusters."""
    return ShiftTable(normal(k, dim), torch.full((k, dim), scale, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_eq_21_the_mean_direction_is_that_of_a_projected_normal(ratio: float) -> None:
    """In 3 dimensions E[z/|z|], z ~ N(mu, s^2 I), has length (1 - 1/r^2) erf(r/sqrt 2) + sqrt(2/pi) e^(-r^2/2)/r, r = |mu|/s."""
    mean = normal(1, 3)
    table = ShiftTable(mean, (mean.norm() / ratio).expand(1, 3))
    length = (1 - ratio**-2) * math.erf(ratio / math.sqrt(2))
    length += math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) / ratio
    found = mean_direction(table, 200_000)
    torch.testing.assert_close(found, length * mean / mean.norm(), rtol=0, atol=5e-3)
    scaled = ShiftTable(mean, 5 * table.scale)
    torch.testing.assert_close(mean_direction(scaled, 200_000, scale=5.0), found)


def test_law_21_monte_carlo_choice_eq_21_is_the_argmax_of_mean_cosines() -> None:
    """Against numpy draws of another generator; text scale changes nothing, permuted clusters permute."""
    table, text, choice = (
        some_table(),
        normal(200, 3, seed=1),
        ClusterChoice("monte_carlo", num_draws=100_000),
    )
    generator, unit = (
        np.random.default_rng(9),
        text.numpy() / np.linalg.norm(text.numpy(), axis=1, keepdims=True),
    )
    scores = []
    for mean, scale in zip(table.mean.numpy(), table.scale.numpy(), strict=True):
        draws = mean + scale * generator.normal(size=(100_000, 3))
        scores.append((draws / np.linalg.norm(draws, axis=1, keepdims=True)).mean(0) @ unit.T)
    expected = np.argmax(scores, axis=0)
    chosen = choice.choose(choice.scores(text, table))
    assert (chosen.numpy() == expected).mean() > 0.98
    assert torch.equal(choice.choose(choice.scores(100 * text, table)), chosen)
    differs = choose_cluster(text, table.mean) != chosen
    assert 0 < int(differs.sum()) < 100, (
        "wide and narrow clusters weigh differently than the plug-in rule says"
    )


def test_eq_21_is_eq_11_where_clusters_are_points_or_equally_far_and_wide() -> None:
    """The Monte-Carlo rule becomes the plug-in rule."""
    text = normal(200, 3, seed=1)
    narrow = some_table(scale=1e-4)
    choice = ClusterChoice("monte_carlo", num_draws=1000)
    assert torch.equal(choice.choose(choice.scores(text, narrow)), choose_cluster(text, narrow.mean))
    unit = ShiftTable(narrow.mean / narrow.mean.norm(dim=1, keepdim=True), torch.full((5, 3), 0.3).double())
    choice = ClusterChoice("monte_carlo", num_draws=200_000)
    same = choice.choose(choice.scores(text, unit)) == choose_cluster(text, unit.mean)
    assert float(same.double().mean()) > 0.98


def test_law_21_permuting_clusters_permutes_every_choice() -> None:
    """Scores of the plug-in and soft rules follow the permutation."""
    table, text, order = some_table(), normal(50, 3, seed=1), torch.tensor([3, 0, 4, 1, 2])
    turned = ShiftTable(table.mean[order], table.scale[order])
    for rule in ("text", "soft"):
        choice = ClusterChoice(rule)
        torch.testing.assert_close(choice.scores(text, turned), choice.scores(text, table)[:, order])
    plain = ClusterChoice("text")
    assert torch.equal(plain.choose(plain.scores(text, table)), choose_cluster(text, table.mean))


def test_eq_22_soft_choices_are_drawn_with_the_softmaxs_probabilities() -> None:
    """Frequencies over 40,000 seeds, against numpy."""
    scores = torch.tensor([[1.0, 0.0, -1.0, 0.5]])
    places = torch.tensor(np.random.default_rng(0).random(40_000))
    drawn = draw_index(scores.expand(len(places), -1), places)
    wanted = np.exp(scores[0].numpy()) / np.exp(scores[0].numpy()).sum()
    np.testing.assert_allclose(np.bincount(drawn.numpy()) / len(places), wanted, atol=0.01)
    assert draw_index(scores, torch.tensor([0.0])).item() == 0
    assert draw_index(scores, torch.tensor([1 - 1e-16]).double()).item() == 3


def test_eq_22_becomes_eq_11_as_the_temperature_falls() -> None:
    """At 1e-6 every draw is the plug-in choice."""
    table, text = some_table(), normal(100, 3, seed=1)
    cold = ClusterChoice("soft", temperature=1e-6)
    chosen = cold.choose(cold.scores(text, table), choice_places(range(100)))
    assert torch.equal(chosen, choose_cluster(text, table.mean))


def test_places_are_uniform_and_belong_to_their_seed() -> None:
    """Mean and variance of U(0, 1); the same seed gives the same place in any batch."""
    places = choice_places(range(2000))
    assert float(places.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(places.var()) == pytest.approx(1 / 12, abs=0.01)
    assert torch.equal(choice_places([7]), places[7:8])


def test_a_table_draws_its_directions_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """k = 1,024 takes seconds: every batch of a training asks for the same."""
    table, drawn = some_table(), []
    monkeypatch.setattr("corgi.diffusion.choice.normals", lambda *args: drawn.append(args) or normals(*args))
    rule, text = ClusterChoice("monte_carlo", num_draws=8), normal(2, 3)
    first = rule.scores(text, table)
    assert torch.equal(rule.scores(text, table), first)
    assert len(drawn) == table.num_clusters
    changed = {**table.state_dict(), "mean": table.mean + 1}
    table.load_state_dict(changed)
    assert not torch.equal(rule.scores(text, table), first)
    assert len(drawn) == 2 * table.num_clusters
    table.to("cpu")
    ClusterChoice("monte_carlo", num_draws=10).scores(text, table)
    assert len(drawn) == 3 * table.num_clusters


def test_wrong_choices_are_refused() -> None:
    """Unknown rules, a head that is not there, a draw without a place."""
    with pytest.raises(REFUSED):
        ClusterChoice("nearest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="positive"):
        ClusterChoice(temperature=0.0)
    with pytest.raises(ValueError, match="from a head"):
        ClusterChoice("learned").scores(normal(2, 3), some_table())
    with pytest.raises(ValueError, match="needs one uniform draw"):
        ClusterChoice("soft").choose(normal(2, 5))
