import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from corgi.diffusion.shifted import ShiftTable
from corgi.models.conv_codec import ConvCodec, ConvConfig
from corgi.models.unet import UNet, UNetSizes
from corgi.settings.training import TrainingSettings
from corgi.training.engine import (
    GuardedAdamW,
    _config,
    learning_rate,
    micro_batches,
    recompute_blocks,
)
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


@pytest.mark.parametrize("use_gpu", [False, True])
def test_optimiser_clips_and_leaves_all_alone_at_a_gradient_that_is_not_finite(use_gpu: bool) -> None:
    settings = TrainingSettings(zero_stage=0, precision="fp32", lr=0.1, grad_clip=1.0, use_gpu=use_gpu)
    model = Net(4)
    optimizer = GuardedAdamW(model.parameters(), settings)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    assert optimizer.finite
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert norm == pytest.approx(1.0, rel=1e-5)
    before = [p.detach().clone() for p in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    counts = [float(state["step"]) for state in optimizer.state.values()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.outer.bias.grad = torch.full_like(model.outer.bias, math.inf)
    optimizer.step()
    assert not optimizer.finite
    assert counts == [float(state["step"]) for state in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, optimizer.state.values(), strict=True))


def test_the_fused_optimiser_of_a_gpu_takes_the_same_steps() -> None:
    """Its kernel runs on a CPU too."""
    stepped = []
    for use_gpu in (False, True):
        torch.manual_seed(0)
        model = Net(4)
        settings = TrainingSettings(zero_stage=0, precision="fp32", lr=0.1, use_gpu=use_gpu)
        optimizer = GuardedAdamW(model.parameters(), settings)
        assert bool(optimizer.defaults["fused"]) == use_gpu
        for step in range(4):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
            optimizer.step()
        stepped.append([p.detach().clone() for p in model.parameters()])
    for plain, fused in zip(*stepped, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-5, atol=1e-6)
    offloaded = TrainingSettings(zero_stage=1, use_gpu=True, offload=True)
    assert not GuardedAdamW(Net(4).parameters(), offloaded).defaults["fused"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradients_are_reduced_during_the_backward_pass_on_gpus(stage: Any) -> None:
    settings = TrainingSettings(zero_stage=stage, use_gpu=True)
    on_gpu: Any = _config(Net(4), settings, alone=stage == 0)
    assert on_gpu["zero_optimization"]["overlap_comm"] is True
    on_cpu: Any = _config(Net(4), settings.model_copy(update={"use_gpu": False}), alone=stage == 0)
    assert "overlap_comm" not in on_cpu["zero_optimization"]


def test_a_setting_that_asks_for_no_tf32_is_not_part_of_the_meaning() -> None:
    assert "tf32" not in TrainingSettings().meaning()
    assert TrainingSettings(tf32=True).meaning()["tf32"] is True


def conv_codec() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a convolutional autoencoder and its inputs."""
    return ConvCodec(ConvConfig((8, 16), 1, 2)), (torch.rand(2, 3, 16, 16), torch.zeros(2, 2, 4, 4))


def unet() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a U-Net with attention, whose blocks hold lists of further blocks, and its inputs."""
    sizes = UNetSizes(widths=(16, 16), attention=(0, 1), heads=2)
    inputs = (torch.randn(2, 64), torch.tensor([1, 9]), torch.randn(2, 8), torch.tensor([True, False]))
    return UNet((4, 4, 4), sizes, ShiftTable.ddpm(8)), inputs


@pytest.mark.slow
@pytest.mark.parametrize("made", [conv_codec, unet])
def test_activation_checkpointing_computes_blocks_once_more_and_the_same_gradients(
    made: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]],
) -> None:
    """A forward pass is a third of a training step: all of it once more is 4/3, nothing of it 1."""
    flops, gradients = [], []
    for is_recomputed in (False, True):
        torch.manual_seed(0)
        model, inputs = made()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)  # last layers that start at zero would hide a gradient
        if is_recomputed:
            recompute_blocks(model)
        with FlopCounterMode(display=False) as counter:
            answer = model(*inputs)
            (answer[0] if isinstance(answer, tuple) else answer).square().sum().backward()
        flops.append(counter.get_total_flops())
        gradients.append([p.grad for p in model.parameters()])
    assert 1.1 < flops[1] / flops[0] < 1.35
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)
