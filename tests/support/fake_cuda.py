"""Run code on fake CUDA tensors without a GPU: mixed devices raise, host syncs and host-device copies are counted by place.

Fake tensors have a shape and a device but no values, so nothing here says whether a figure is right. torch's fake mode raises
for most mixed devices; `Watch` adds the two that it lets pass: a CPU tensor indexed by a CUDA index, and foreach lists.
No backward pass runs: autograd asks for a driver.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from corgi.diffusion import philox

CUDA = torch.device("cuda", 0)
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_COPIES = ("aten::_to_copy", "aten::copy_")


class Watch(TorchDispatchMode):
    """Refuses what a GPU refuses and the fake mode does not; counts what makes the host wait or moves data to or from it."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, options = func._schema.name, kwargs or {}
        if name in _INDEXED:
            self._check_index(args)
        elif name.startswith("aten::_foreach") and len(args) > 1 and isinstance(args[1], list | tuple):
            _check_pairs(name, args[0], args[1])
        elif name == "aten::_local_scalar_dense":
            return self._scalar(args[0])
        elif name == "aten::nonzero" and _is_cuda(args[0]):
            self.syncs[_place()] += 1
        elif name in _COPIES:
            self._count_copy(name, args, options)
        return func(*args, **options)

    def _check_index(self, args: Sequence[Any]) -> None:
        for index in [index for index in args[1] if isinstance(index, Tensor)]:
            if _is_cuda(index) and not _is_cuda(args[0]):
                raise RuntimeError(f"a CPU tensor is indexed by a CUDA tensor at {_place()}")
            if not _is_cuda(index) and _is_cuda(args[0]):
                self.copies[f"index {_place()}"] += 1

    def _scalar(self, value: Tensor) -> bool | int | float:
        """Answer for a value that does not exist: True or one."""
        if _is_cuda(value):
            self.syncs[_place()] += 1
        return True if value.dtype == torch.bool else 1.0 if value.is_floating_point() else 1

    def _count_copy(self, name: str, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        source, target = (
            (args[0], options.get("device")) if name == "aten::_to_copy" else (args[1], args[0].device)
        )
        if target is not None and source.device.type != torch.device(target).type:
            self.copies[_place()] += 1


@contextmanager
def fake_cuda() -> Iterator[Watch]:
    """Let CUDA tensors be made and used; yields the counts.

    Noise has two of its ten rounds: each is the same operations, and no value depends on them here.
    """
    with (
        patch.object(philox, "_ROUNDS", 2),
        FakeTensorMode(allow_non_fake_inputs=True),
        Watch() as watch,
    ):
        yield watch


def to_cuda(module: Any) -> Any:
    """Return the module with its weights and buffers on the fake GPU: `Module.to` cannot swap fake parameters."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(weight.detach().to(CUDA), weight.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = value.to(CUDA)
    return module


def _is_cuda(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _check_pairs(name: str, first: Sequence[Any], second: Sequence[Any]) -> None:
    for a, b in zip(first, second, strict=False):
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.device != b.device:
            raise RuntimeError(f"{name} mixes {a.device} and {b.device} at {_place()}")


def _place() -> str:
    """Return file:line of the innermost line of corgi/."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/corgi/" in name:
            return f"{name.rsplit('/corgi/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
