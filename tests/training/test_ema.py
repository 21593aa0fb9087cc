from pathlib import Path

import pytest
import torch
from torch import nn

from corgi.training.ema import Ema
from tests.support.tiny_training import Net


def moved(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.law
def test_average_follows_its_recurrence_in_fp32_from_bf16_weights() -> None:
    model = Net(4).bfloat16()
    ema = Ema(model, 0.5, keeper=True)
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    for n in range(12):
        moved(model, n)
        ema.update(model, n)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = {
            name: decay * expected[name] + (1 - decay) * p.detach().double()
            for name, p in model.named_parameters()
        }
    for name, value in expected.items():
        assert ema.averages[name].dtype == torch.float32
        torch.testing.assert_close(ema.averages[name].double(), value, rtol=1e-5, atol=1e-6)


def test_saved_by_name_and_read_back_bit_equal(tmp_path: Path) -> None:
    model = Net(4)
    ema = Ema(model, 0.9, keeper=True)
    moved(model, 1)
    ema.update(model, 100)
    ema.save(tmp_path / "ema.safetensors")
    other = Ema(Net(4), 0.9, keeper=True)
    other.load(tmp_path / "ema.safetensors", torch.device("cpu"))
    assert all(torch.equal(other.averages[name], value) for name, value in ema.averages.items())
    with pytest.raises(ValueError, match="other parameters"):
        Ema(nn.Linear(2, 2), 0.9, keeper=True).load(tmp_path / "ema.safetensors", torch.device("cpu"))


def test_weights_load_strictly_with_buffers_and_tied_names() -> None:
    model = Net(4)
    model.twin = model.outer
    ema = Ema(model, 0.0, keeper=True)
    moved(model, 2)
    ema.update(model, 10_000)
    fresh = Net(4)
    fresh.twin = fresh.outer
    fresh.load_state_dict(ema.weights(model))
    assert all(
        torch.equal(a, b)
        for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_a_rank_that_keeps_nothing_holds_nothing() -> None:
    ema = Ema(Net(4), 0.9, keeper=False)
    ema.update(Net(4), 0)
    assert ema.averages == {}
