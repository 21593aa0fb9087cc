"""A snapshot is what DeepSpeed would have written at that moment, and nothing else."""

from collections import OrderedDict, namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from corgi.training.snapshot import TAG, HostBuffers, Snapshot, snapshot
from tests.support.tiny_training import Net

Place = namedtuple("Place", ["start", "numel"])


class Engine:
    """Hands states to its checkpoint engine and leaves scripts beside them, as DeepSpeed does."""

    def __init__(self, state: object) -> None:
        self.state = state
        self.checkpoint_engine: Any = SimpleNamespace(save=torch.save)

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        assert not save_latest
        (Path(folder) / tag).mkdir(parents=True)
        self.checkpoint_engine.save(self.state, str(Path(folder) / tag / "states.pt"))
        self._copy_recovery_script(folder)

    def _copy_recovery_script(self, folder: str) -> None:
        for name in ("zero_to_fp32.py", "zero_to_torch.py"):
            (Path(folder) / name).touch()


def test_what_is_written_later_is_the_state_of_the_moment_and_holds_no_script(tmp_path: Path) -> None:
    model = Net(4)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    counts = [1, 2]
    state = {
        "module": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "counts": counts,
        "n": Place(1, 2),
    }
    torch.save(state, tmp_path / "expected.pt")
    engine: Any = Engine(state)
    held = snapshot(engine, tmp_path / "step", HostBuffers())
    optimizer.step()
    counts.append(3)
    held.write()
    expected = torch.load(tmp_path / "expected.pt", weights_only=False)
    written = torch.load(tmp_path / "step" / TAG / "states.pt", weights_only=False)
    assert_same(written, expected)
    assert isinstance(written["module"], OrderedDict)
    assert vars(written["module"]) == vars(expected["module"])
    assert [path.name for path in (tmp_path / "step").rglob("*") if path.is_file()] == ["states.pt"]
    assert engine.checkpoint_engine.save is torch.save
    assert "_copy_recovery_script" not in vars(engine)


def test_tied_tensors_stay_one_and_a_view_is_written_without_the_rest(tmp_path: Path) -> None:
    flat = torch.arange(1_000_000.0)
    part = flat[10:20].view(2, 5)
    engine: Any = Engine({"a": part, "b": [part, part.t()], "shape": part.shape})
    snapshot(engine, tmp_path, HostBuffers()).write()
    path = tmp_path / TAG / "states.pt"
    written = torch.load(path, weights_only=False)
    assert path.stat().st_size < 10_000
    assert written["a"].data_ptr() == written["b"][0].data_ptr()
    assert torch.equal(written["b"][1], part.t())
    assert isinstance(written["shape"], torch.Size)


def test_a_later_snapshot_is_copied_into_the_memory_of_the_one_before(tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0), "b": torch.ones(6), "transposed": torch.arange(6.0).view(2, 3).t()}
    engine: Any = Engine(state)
    buffers = HostBuffers()
    first = tensors_of(snapshot(engine, tmp_path / "1", buffers))
    addresses = {value.data_ptr() for value in first.values()}
    state["a"].mul_(2)
    assert torch.equal(first["a"], torch.arange(6.0))
    buffers.reclaim()
    second = snapshot(engine, tmp_path / "2", buffers)
    assert {value.data_ptr() for value in tensors_of(second).values()} == addresses
    second.write()
    assert_same(torch.load(tmp_path / "2" / TAG / "states.pt"), state)
    engine.state = {"a": state["a"]}
    buffers.reclaim()
    [third] = tensors_of(snapshot(engine, tmp_path / "3", buffers)).values()
    assert third.data_ptr() in addresses
    engine.state = state
    buffers.reclaim()
    fourth = tensors_of(snapshot(engine, tmp_path / "4", buffers)).values()
    assert third.data_ptr() in {value.data_ptr() for value in fourth}
    assert len({value.data_ptr() for value in fourth}) == 3, "what was not used was let go and is made again"


def test_copies_that_are_not_reclaimed_are_never_shared() -> None:
    buffers, value = HostBuffers(), torch.zeros(4)
    copies = [buffers.copied(value) for _ in range(3)]
    buffers.reclaim()
    copies = [buffers.copied(value) for _ in range(4)]
    assert len({copy.data_ptr() for copy in copies}) == 4


def tensors_of(held: Snapshot) -> dict[str, torch.Tensor]:
    [(_, state)] = held.states
    assert isinstance(state, dict)
    return state


def assert_same(one: Any, other: Any) -> None:
    """Check that two nested states are equal bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other
