"""The averaged weights: fp32, by parameter name, the same under every ZeRO stage."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_GATHERED_NUMEL = 2**26


class Ema:
    """An exponential moving average of the weights that the forward pass uses, kept by one rank.

    The decay starts small and rises, min(decay, (1 + n) / (10 + n)) at update n, so that a short run does not
    end as its own random start. Names, not positions, identify weights: the file fits any stage or world size.
    """

    def __init__(self, model: nn.Module, decay: float, keeper: bool) -> None:
        """Start from a model's weights. Ranks that are not the keeper store nothing, but must call update."""
        self.decay = decay
        self.keeper = keeper
        self.averages: dict[str, Tensor] = {}
        if keeper:
            self.averages = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: int) -> None:
        """Move towards the current weights; a collective under ZeRO-3, `num_updates` counts those before."""
        weight = 1 - min(self.decay, (1 + num_updates) / (10 + num_updates))
        for chunk in _chunks(model):
            with _whole([parameter for _, parameter in chunk]):
                if self.keeper:
                    held = [self.averages[name] for name, _ in chunk]
                    torch._foreach_lerp_(
                        held, [p.detach().to(a) for a, (_, p) in zip(held, chunk, strict=True)], weight
                    )

    def save(self, path: Path) -> None:
        """Write the averages; called on the keeper only."""
        save_file({name: value.cpu() for name, value in self.averages.items()}, path)

    def load(self, path: Path, device: torch.device) -> None:
        """Read the averages of a verified file; called on the keeper only.

        Raises:
            ValueError: the names are not the model's.

        """
        found = load_file(path)
        if found.keys() != self.averages.keys():
            raise ValueError(
                f"{path} averages other parameters: {sorted(found.keys() ^ self.averages.keys())[:4]}"
            )
        self.averages = {name: value.to(device) for name, value in found.items()}

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return a state dict of the averages, under every name of a tied weight, and the model's buffers."""
        first: dict[int, str] = {
            id(parameter): name for name, parameter in reversed(list(model.named_parameters()))
        }
        tied = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        buffers = {name: value for name, value in model.state_dict().items() if name not in tied}
        averaged = {name: self.averages[original].clone() for name, original in tied.items()}
        return {
            name: value.detach().cpu().contiguous().clone() for name, value in {**averaged, **buffers}.items()
        }


def _chunks(model: nn.Module) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """Yield the parameters in groups small enough to gather at once."""
    chunk: list[tuple[str, nn.Parameter]] = []
    size = 0
    for name, parameter in model.named_parameters():
        chunk.append((name, parameter))
        size += getattr(parameter, "ds_numel", parameter.numel())
        if size >= _GATHERED_NUMEL:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _whole(parameters: list[nn.Parameter]) -> AbstractContextManager[object]:
    """Return a context in which ZeRO-3's parameters are gathered; at other stages they always are."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(parameters)
