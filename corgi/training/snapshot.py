"""A worker's part of a checkpoint copied into the node's memory, so that it can be written while the training goes on."""

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

TAG = "engine"
"""The folder of DeepSpeed's files inside a checkpoint."""
_View = tuple[int, torch.Size, tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Snapshot:
    """What DeepSpeed would have written, by path; nothing in it changes when the training goes on."""

    states: tuple[tuple[Path, object], ...]

    def write(self) -> None:
        """Write every file; another thread may run meanwhile, since the bytes pass through Python's own file."""
        for path, state in self.states:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as sink:
                torch.save(state, sink)


def snapshot(engine: "DeepSpeedEngine", folder: Path) -> Snapshot:
    """Return a copy of this rank's shard of the engine's state, to be written below `folder`; a collective.

    DeepSpeed hands each file's state to its checkpoint engine, which here copies it. The scripts that it leaves beside its files
    are not written: a checkpoint holds data only.
    """
    held: list[tuple[Path, object]] = []

    def keep(state_dict: object, path: str) -> None:
        held.append((Path(path), _Copies()(state_dict)))

    with (
        _replaced(engine.checkpoint_engine, "save", keep),
        _replaced(engine, "_copy_recovery_script", lambda path: None),
    ):
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return Snapshot(tuple(held))


@contextmanager
def _replaced(owner: Any, name: str, value: Callable[..., object]) -> Generator[None]:
    """Give an object an attribute of its own as long as the block runs."""
    before = {key: kept for key, kept in vars(owner).items() if key == name}
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        vars(owner).update(before)


class _Copies:
    """Copies of the nested states of one file on the host; tensors that were one are one again."""

    def __init__(self) -> None:
        self._made: dict[_View, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value.detach())
        if isinstance(value, dict):
            made = copy.copy(value)  # of its own class, with its attributes
            for key, item in value.items():
                made[key] = self(item)
            return made
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self, value))
        if isinstance(value, list | tuple):
            return type(value)([self(item) for item in value])
        return copy.deepcopy(value)

    def _tensor(self, value: Tensor) -> Tensor:
        view = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() == 0 or view not in self._made:
            held = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            self._made[view] = held.copy_(value, non_blocking=True)
        return self._made[view]
