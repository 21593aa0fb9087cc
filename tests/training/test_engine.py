import itertools
import math

import pytest
import torch

from corgi.settings.training import TrainingSettings
from corgi.training.engine import GuardedAdamW, learning_rate, micro_batches
from tests.support.tiny_training import Net


@pytest.mark.law
def test_rate_warms_up_to_the_peak_and_a_cosine_ends_at_zero() -> None:
    settings = TrainingSettings(num_steps=100, warmup_steps=10, lr=0.5, lr_schedule="cosine")
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    constant = TrainingSettings(num_steps=100, warmup_steps=10, lr=0.5)
    assert {learning_rate(constant, step) for step in range(10, 100)} == {0.5}


@pytest.mark.parametrize(
    ("share", "micro", "expected"), [(12, 0, 1), (12, 12, 1), (12, 5, 3), (12, 1, 12), (7, 3, 3), (8, 100, 1)]
)
def test_share_is_cut_into_parts_no_larger_than_asked(share: int, micro: int, expected: int) -> None:
    assert micro_batches(TrainingSettings(global_batch=share, micro_batch=micro)) == expected


def test_optimiser_clips_and_leaves_all_alone_at_a_gradient_that_is_not_finite() -> None:
    settings = TrainingSettings(zero_stage=0, precision="fp32", lr=0.1, grad_clip=1.0)
    model = Net(4)
    optimizer = GuardedAdamW(model.parameters(), settings)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    assert not optimizer.overflow
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert norm == pytest.approx(1.0, rel=1e-5)
    before = [p.detach().clone() for p in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.outer.bias.grad = torch.full_like(model.outer.bias, math.inf)
    optimizer.step()
    assert optimizer.overflow
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, optimizer.state.values(), strict=True))
