"""Communication between the workers of one training. Without a process group a process is rank 0 of 1.

`group` is a process group of all workers; the default is the training's own. Each thread of a process needs its own group.
"""

from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

_Value = TypeVar("_Value")


def rank() -> int:
    """Return this worker's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_group() -> dist.ProcessGroup | None:
    """Create another process group of all workers, for communication on the host by another thread; None for one worker. A collective."""
    return cast("dist.ProcessGroup", dist.new_group(backend="gloo")) if world_size() > 1 else None


def barrier(group: dist.ProcessGroup | None = None) -> None:
    """Wait until every worker has called this."""
    if world_size() > 1:
        dist.barrier(group)


def from_first(value: _Value) -> _Value:
    """Return rank 0's value on every worker."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gathered(value: _Value, group: dist.ProcessGroup | None = None) -> list[_Value]:
    """Return every worker's value, in order of rank, on every worker."""
    if world_size() == 1:
        return [value]
    values: list[_Value] = [value] * world_size()
    dist.all_gather_object(values, value, group)
    return values


def own_rows(num_rows: int) -> range:
    """Return this worker's share of `num_rows` rows: shares are contiguous, in order of rank, and differ by one row at most."""
    return range(num_rows * rank() // world_size(), num_rows * (rank() + 1) // world_size())


def rows_of_all(rows: Tensor) -> Tensor:
    """Return the rows of every worker, in order of rank, on every worker."""
    return torch.cat([part.to(rows.device) for part in gathered(rows.cpu())]) if world_size() > 1 else rows


def summed(value: Tensor) -> Tensor:
    """Return the sum of every worker's tensor, on every worker."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def copy_from_first(module: nn.Module) -> None:
    """Copy the parameters and buffers of rank 0's module to every worker."""
    if world_size() > 1:
        for value in module.state_dict().values():
            dist.broadcast(value, src=0)
