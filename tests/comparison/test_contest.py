"""Trainings of the comparison: each arm in its space, and the one-pass losses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from corgi.comparison.arms import info_nce
from corgi.feeding.noise import Noise
from tests.support.compared import SETTINGS


@pytest.mark.parametrize("arm", ["dalle2", "standardised", "eclipse"])
def test_an_arm_trains_and_is_evaluated_in_its_space(arm: str, objective_of) -> None:
    objective = objective_of(arm)
    model = objective.model()
    batch = {name: torch.from_numpy(value) for name, value in objective.rows().load(0).items()}
    loss, _ = objective.loss(model, batch, Noise(0, torch.arange(len(batch["image"]))))
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert all(np.isfinite(value) for value in objective.evaluate(model).values())


def test_a_one_pass_arm_is_trained_where_the_noisy_embedding_says_nothing(objective_of) -> None:
    objective = objective_of("regression")
    batch = {name: torch.from_numpy(value) for name, value in objective.rows().load(0).items()}
    seen: dict[str, torch.Tensor] = {}

    def spy(z_t, t, text, cluster):
        seen.update(z_t=z_t, t=t)
        return torch.zeros_like(z_t)

    noise = Noise(0, torch.arange(len(batch["image"])))
    loss, _ = objective.loss(spy, batch, noise)
    other = {**batch, "image": batch["image"].roll(1, 0)}
    first = seen["z_t"]
    objective.loss(spy, other, noise)
    assert torch.equal(first, seen["z_t"])
    assert (seen["t"] == objective.process.schedule.num_steps).all()
    assert float(loss) == pytest.approx(1.0, rel=1e-5)


def test_eclipse_adds_the_weighted_contrastive_term(objective_of) -> None:
    eclipse, plain = objective_of("eclipse"), objective_of("regression")
    batch = {name: torch.from_numpy(value) for name, value in plain.rows().load(0).items()}
    noise = Noise(0, torch.arange(len(batch["image"])))
    answer = F.normalize(
        torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    first, _ = plain.loss(lambda *_: answer, batch, noise)
    second, told = eclipse.loss(lambda *_: answer, batch, noise)
    assert float(second - first) == pytest.approx(
        SETTINGS.contrastive_weight * float(told["contrastive"]), rel=1e-4
    )
    text = torch.eye(4)
    assert float(info_nce(text, text, 0.01)) < 1e-6 < float(info_nce(text.roll(1, 0), text, 0.01))
