from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from corgi.training import ema as ema_module
from corgi.training import masters as masters_module
from corgi.training.ema import EarlierEma, Ema, apart, state_of, with_second
from corgi.training.masters import Stretch, masters, shapes, shares
from corgi.training.objective import SecondAverage
from corgi.training.snapshot import HostBuffers
from tests.support.tiny_training import Net

CPU = torch.device("cpu")


def moved(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def averaged(model: nn.Module, decay: float) -> Ema:
    return Ema(shares(model), shapes(model), decay, CPU)


@pytest.mark.law
def test_average_follows_its_recurrence_in_fp32_from_bf16_weights() -> None:
    model = Net(4).bfloat16()
    ema = averaged(model, 0.5)
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    for n in range(12):
        moved(model, n)
        ema.update(n)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = {
            name: decay * expected[name] + (1 - decay) * p.detach().double()
            for name, p in model.named_parameters()
        }
    for name, average in ema.whole().items():
        assert average.dtype == torch.float32
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.law
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_workers_hold_every_value_once_and_a_file_of_one_world_fits_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: int
) -> None:
    model = Net(4)
    whole = averaged(model, 0.9)
    moved(model, 1)
    whole.update(100)
    save_file(whole.whole(), tmp_path / "ema.safetensors")
    parts: list[Mapping[str, Stretch]] = []
    for number in range(world):
        monkeypatch.setattr(masters_module, "rank", lambda number=number: number)
        monkeypatch.setattr(masters_module, "world_size", lambda: world)
        parts.append(shares(model))
    found = {name: torch.zeros(shape.numel()) for name, shape in shapes(model).items()}
    for held in parts:
        ema = Ema(held, shapes(model), 0.9, CPU)
        ema.load(tmp_path / "ema.safetensors")
        for name, part in ema.whole().items():
            found[name] += part.view(-1)
    assert sum(s.values.numel() for held in parts for s in held.values()) == sum(
        p.numel() for p in model.parameters()
    )
    for name, average in whole.whole().items():
        assert torch.equal(found[name].view(average.shape), average)


def test_saved_by_name_and_read_back_bit_equal(tmp_path: Path) -> None:
    model = Net(4)
    ema = averaged(model, 0.9)
    moved(model, 1)
    ema.update(100)
    save_file(ema.whole(), tmp_path / "ema.safetensors")
    other = averaged(Net(4), 0.9)
    other.load(tmp_path / "ema.safetensors")
    for name, average in ema.whole().items():
        assert torch.equal(other.whole()[name], average)
    with pytest.raises(ValueError, match="other parameters"):
        averaged(nn.Linear(2, 2), 0.9).load(tmp_path / "ema.safetensors")


def test_the_whole_is_gathered_in_pieces_and_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ema_module, "GATHERED_NUMEL", 20)
    model = Net(4)
    ema = averaged(model, 0.9)
    before = ema.whole()
    assert list(before) == [name for name, _ in model.named_parameters()]
    kept = {name: value.clone() for name, value in before.items()}
    moved(model, 3)
    ema.update(5)
    for name, value in before.items():
        assert torch.equal(value, kept[name])
        assert not torch.equal(value, ema.whole()[name])


def test_a_copy_for_the_thread_stays_as_it_is_until_its_memory_is_reclaimed() -> None:
    model, buffers = Net(4), HostBuffers()
    ema = averaged(model, 0.9)
    before = ema.whole()
    copied = ema.copied(buffers)
    moved(model, 3)
    ema.update(5)
    for name, value in copied.whole(CPU).items():
        assert torch.equal(value, before[name])
    assert copied.held.keys() == before.keys()


def test_state_loads_strictly_with_buffers_and_tied_names() -> None:
    model = Net(4)
    model.twin = model.outer
    ema = averaged(model, 0.0)
    moved(model, 2)
    ema.update(10_000)
    fresh = Net(4)
    fresh.twin = fresh.outer
    fresh.load_state_dict(state_of(ema.whole(), model))
    assert all(
        torch.equal(a, b)
        for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_a_worker_without_any_value_averages_nothing() -> None:
    ema = Ema({}, shapes(Net(4)), 0.9, CPU)
    ema.update(0)
    assert all(not value.any() for value in ema.whole().values())


def test_masters_of_bf16_weights_are_averaged_not_the_weights() -> None:
    """At ZeRO stages 1 and 2 the optimiser's fp32 stretch differs from the bf16 copy that the forward pass uses."""
    model: Any = nn.Linear(3, 2, bias=False).bfloat16()
    held = torch.linspace(0.1, 0.4, 4)
    address = type("Address", (), {"start": 1})
    vars(model.weight)["_hp_mapping"] = type(
        "Mapping", (), {"lp_fragment_address": address, "hp_fragment": held}
    )
    engine: Any = type("Engine", (), {"module": model, "optimizer": None})
    ema = Ema(masters(engine), shapes(model), 0.0, CPU)
    held.add_(1e-4)  # less than a bf16 step
    ema.update(10_000)
    assert torch.equal(ema.whole()["weight"].view(-1), torch.cat([torch.zeros(1), held, torch.zeros(1)]))
    vars(model.weight)["_hp_mapping"] = None
    assert masters(engine) == {}


@pytest.mark.law
def test_a_second_average_is_that_of_its_own_decay_at_the_step_where_it_stands_still() -> None:
    model = Net(4)
    earlier = EarlierEma(shares(model), shapes(model), SecondAverage(0.5, 4), CPU)
    alone = averaged(model, 0.5)
    for n in range(9):
        moved(model, n)
        earlier.update(n)
        if n < 4:
            alone.update(n)
    for name, value in alone.whole().items():
        assert torch.equal(earlier.whole()[name], value)


def test_two_averages_are_one_file_and_apart_again() -> None:
    first, second = ({"a": torch.full((2,), value), "b.c": torch.zeros(1)} for value in (1.0, 2.0))
    together = with_second(first, second)
    assert len(together) == 4
    for found, given in zip(apart(together), (first, second), strict=True):
        assert found.keys() == given.keys()
        assert all(found[name] is value for name, value in given.items())
    assert apart(with_second(first))[1] == {}
