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
_Kind = tuple[torch.Size, tuple[int, ...], torch.dtype, bool]


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


class HostBuffers:
    """The host's memory into which one checkpoint after another is copied.

    It is made for the first checkpoint: fresh memory costs several times what copying into it costs, the more if it is pinned,
    as it is for what comes from a GPU.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._free: dict[_Kind, list[Tensor]] = {}
        self._lent: list[tuple[_Kind, Tensor]] = []

    def copied(self, value: Tensor) -> Tensor:
        """Return a copy of a tensor in this memory, valid until `reclaim`; from a GPU it is complete once the device is synchronised."""
        kind = (value.shape, value.stride(), value.dtype, value.is_cuda)
        free = self._free.get(kind)
        made = free.pop() if free else torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        self._lent.append((kind, made))
        return made.copy_(value, non_blocking=True)

    def reclaim(self) -> None:
        """Take back what was lent since the last time, for the next copies; what they have not used is let go."""
        self._free = {}
        for kind, made in self._lent:
            self._free.setdefault(kind, []).append(made)
        self._lent = []


def snapshot(engine: "DeepSpeedEngine", folder: Path, buffers: HostBuffers) -> Snapshot:
    """Return a copy of this rank's shard of the engine's state, to be written below `folder`; a collective.

    The snapshot is valid until the buffers are reclaimed. DeepSpeed hands each file's state to its checkpoint engine, which here
    copies it. The scripts that it leaves beside its files are not written: a checkpoint holds data only.
    """
    held: list[tuple[Path, object]] = []

    def keep(state_dict: object, path: str) -> None:
        held.append((Path(path), _Copies(buffers)(state_dict)))

    with (
        _replaced(engine.checkpoint_engine, "save", keep),
        _replaced(engine, "_copy_recovery_script", lambda path: None),
    ):
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    synchronise()
    return Snapshot(tuple(held))


def synchronise() -> None:
    """Wait until the copies from a GPU are complete."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def _replaced(owner: object, name: str, value: Callable[..., object]) -> Generator[None]:
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

    def __init__(self, buffers: HostBuffers) -> None:
        self._memory = buffers
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
            self._made[view] = self._memory.copied(value)
        return self._made[view]
