"""The fp32 master weights as ZeRO shards them: for each parameter, the stretch of values that this worker holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Num
from torch import Tensor, nn

from corgi.training.ranks import rank, world_size

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


@dataclass(frozen=True)
class Stretch:
    """Values start, start + 1, ... of a flattened parameter: a view of the optimiser's memory, which each step changes."""

    start: int
    values: Num[Tensor, "n"]


def masters(engine: "DeepSpeedEngine") -> dict[str, Stretch]:
    """Return this worker's stretch of each trainable parameter, by name; parameters of which it holds no values are left out.

    At stage 0 every worker has all masters and takes an equal share of each. At the other stages the stretch is the part that ZeRO
    assigned to the worker's optimiser. Together the workers hold every value exactly once.
    """
    model: Any = engine.module
    stretches = {name: _stretch(engine.optimizer, parameter) for name, parameter in _learning(model)}
    return {
        name: stretch for name, stretch in stretches.items() if stretch is not None and stretch.values.numel()
    }


def shares(model: nn.Module) -> dict[str, Stretch]:
    """Return this worker's equal share of each trainable parameter of a model that every worker holds whole."""
    return {name: _share(parameter) for name, parameter in _learning(model)}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the unsharded shape of each trainable parameter, by name, in order; a tied one is named once."""
    return {name: getattr(parameter, "ds_shape", parameter.shape) for name, parameter in _learning(model)}


def frozen(model: nn.Module) -> dict[str, Tensor]:
    """Return copies on rank 0's host of the frozen parameters, by name; an empty dict on the other ranks.

    Call this before the engine is built: the engine may store them in bf16, and no optimiser has masters of them.
    """
    if rank() > 0:
        return {}
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }


def _learning(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _stretch(optimizer: Any, parameter: Any) -> Stretch | None:
    if hasattr(parameter, "ds_id"):
        return _of_stage_3(optimizer, parameter)
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        return (
            None
            if mapping is None
            else Stretch(mapping.lp_fragment_address.start, mapping.hp_fragment.detach())
        )
    return _share(parameter)


def _of_stage_3(optimizer: Any, parameter: Any) -> Stretch:
    """Return the part that stage 3 stores on this worker: equal parts in order of rank, the last one padded."""
    values = optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=True)[0].detach()
    start = rank() * values.numel()
    return Stretch(start, values[: max(0, parameter.ds_numel - start)])


def _share(parameter: nn.Parameter) -> Stretch:
    whole = parameter.detach().view(-1)
    first, end = (whole.numel() * number // world_size() for number in (rank(), rank() + 1))
    return Stretch(first, whole[first:end])
