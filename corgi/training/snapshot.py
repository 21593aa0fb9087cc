"""A worker's part of a checkpoint copied into the node's memory, so that it can be written while the training continues."""

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
_Kind = tuple[torch.Size, tuple[int, ...], torch.dtype, bool]


@dataclass(frozen=True)
class Snapshot:
    """What DeepSpeed would have written, by path; it does not change while the training continues."""

    states: tuple[tuple[Path, object], ...]

    def write(self) -> None:
        """Write every file. Other threads can run meanwhile, since torch writes through a Python file object."""
        for path, state in self.states:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as sink:
                torch.save(state, sink)


class HostBuffers:
    """Host memory into which each checkpoint is copied; the next one reuses it.

    It is allocated for the first checkpoint: allocation takes several times as long as the copy, and longer still for pinned memory,
    which copies from a GPU need.
    """

    def __init__(self) -> None:
        """Start without any memory."""
        self._free: dict[_Kind, list[Tensor]] = {}
        self._lent: list[tuple[_Kind, Tensor]] = []

    def copied(self, value: Tensor) -> Tensor:
        """Return a copy of a tensor in this memory, valid until `reclaim`; a copy from a GPU is complete once the device is synchronised."""
        kind = (value.shape, value.stride(), value.dtype, value.is_cuda)
        free = self._free.get(kind)
        buffer = free.pop() if free else torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        self._lent.append((kind, buffer))
        return buffer.copy_(value, non_blocking=True)

    def reclaim(self) -> None:
        """Make the buffers lent since the last call available for the next copies; free those that were not used since."""
        self._free = {}
        for kind, buffer in self._lent:
            self._free.setdefault(kind, []).append(buffer)
        self._lent = []


def snapshot(engine: "DeepSpeedEngine", folder: Path, buffers: HostBuffers) -> Snapshot:
    """Return a copy of this rank's shard of the engine's state, to be written below `folder`; a collective.

    The snapshot is valid until the buffers are reclaimed. DeepSpeed passes each file's state to its checkpoint engine, which here
    copies it. The scripts that DeepSpeed saves with its files are not written: a checkpoint contains data only.
    """
    copied: list[tuple[Path, object]] = []

    def keep(state_dict: object, path: str) -> None:
        copied.append((Path(path), _Copies(buffers)(state_dict)))

    with (
        _replaced(engine.checkpoint_engine, "save", keep),
        _replaced(engine, "_copy_recovery_script", lambda path: None),
    ):
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    synchronise()
    return Snapshot(tuple(copied))


def synchronise() -> None:
    """Wait until the copies from a GPU are complete."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def _replaced(owner: object, name: str, value: Callable[..., object]) -> Generator[None]:
    """Replace an object's attribute while the block runs."""
    before = {key: kept for key, kept in vars(owner).items() if key == name}
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        vars(owner).update(before)


class _Copies:
    """Copies the nested states of one file to the host; tensors that share memory and shape are copied once."""

    def __init__(self, buffers: HostBuffers) -> None:
        self._memory = buffers
        self._made: dict[_View, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value.detach())
        if isinstance(value, dict):
            made = copy.copy(value)  # keeps its class and attributes
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
            self._made[view] = self._memory.copied(value)
        return self._made[view]
