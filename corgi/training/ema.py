"""Averages of the trainable weights: in fp32, sharded over the workers like the optimiser's master weights, stored whole and by name in a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from corgi.training.masters import Stretch
from corgi.training.objective import SecondAverage
from corgi.training.ranks import rank, world_size
from corgi.training.snapshot import HostBuffers, synchronise

GATHERED_NUMEL = 2**26
SECOND = "second."
"""Prefix of the names of a second average's weights among the final weights."""


class Ema:
    """An exponential moving average of the fp32 masters; each worker averages the stretches that it holds.

    The decay starts small and rises, min(decay, (1 + n) / (10 + n)) at update n, so that the average of
    a short run is not dominated by its random initial weights. Weights are identified by name, so the file fits any ZeRO stage
    or world size.
    """

    def __init__(
        self,
        held: Mapping[str, Stretch],
        shapes: Mapping[str, torch.Size],
        decay: float,
        device: torch.device,
    ) -> None:
        """Start from the masters. `shapes` are those of all trainable parameters; whole averages are gathered on `device`."""
        self.decay, self.device = decay, device
        self._held, self._shapes = held, shapes
        self._averages = {name: stretch.values.float().clone() for name, stretch in held.items()}

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Move towards the current masters; `num_updates` is the number of earlier updates. No worker waits for another."""
        weight = 1 - min(self.decay, (1 + num_updates) / (10 + num_updates))
        averages = list(self._averages.values())
        if averages:
            masters = [self._held[name].values.to(average) for name, average in self._averages.items()]
            torch._foreach_lerp_(averages, masters, weight)

    @torch.no_grad()
    def whole(self) -> dict[str, Float[Tensor, "..."]]:
        """Return copies of all averages on rank 0's host, an empty dict on the other ranks; a collective."""
        return self._own().whole(self.device)

    @torch.no_grad()
    def copied(self, buffers: HostBuffers) -> "Averages":
        """Return a copy of this worker's averages on the host, for a thread that gathers them; valid until the buffers are reclaimed."""
        own = self._own()
        held = {
            name: Stretch(stretch.start, buffers.copied(stretch.values)) for name, stretch in own.held.items()
        }
        synchronise()
        return Averages(held, own.shapes)

    def _own(self) -> "Averages":
        held = {name: Stretch(self._held[name].start, values) for name, values in self._averages.items()}
        return Averages(held, self._shapes)

    def load(self, path: Path) -> None:
        """Load this worker's stretches from a verified file.

        Raises:
            ValueError: the file's names are not the model's.

        """
        with safe_open(path, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            if set(file.keys()) != set(self._shapes):
                differing = sorted(set(file.keys()) ^ set(self._shapes))
                raise ValueError(f"{path} averages other parameters: {differing[:4]}")
            for name, average in self._averages.items():
                start = self._held[name].start
                average.copy_(file.get_tensor(name).view(-1)[start : start + average.numel()])


@dataclass(frozen=True)
class Averages:
    """One worker's part of the averages at a step, and the shapes of all parameters."""

    held: Mapping[str, Stretch]
    shapes: Mapping[str, torch.Size]

    def whole(
        self, device: torch.device, group: dist.ProcessGroup | None = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return copies of all averages on rank 0's host, an empty dict on the other ranks; a collective that gathers them on a device."""
        averages: dict[str, Tensor] = {}
        for names in _chunks(self.shapes):
            sizes = [self.shapes[name].numel() for name in names]
            gathered = torch.zeros(sum(sizes), device=device)
            parts = gathered.split(sizes)
            for name, part in zip(names, parts, strict=True):
                if name in self.held:
                    start, values = self.held[name].start, self.held[name].values
                    part[start : start + values.numel()] = values
            if world_size() > 1:
                # Summed as integers: each value is on one rank only, and adding zeros preserves its bits.
                dist.reduce(gathered.view(torch.int32), 0, group=group)
            if rank() == 0:
                for name, part in zip(names, parts, strict=True):
                    averages[name] = part.to("cpu", copy=True).view(self.shapes[name])
        return averages


class EarlierEma(Ema):
    """A second average of the same masters with a decay of its own, which no longer changes after `until` updates."""

    def __init__(
        self,
        held: Mapping[str, Stretch],
        shapes: Mapping[str, torch.Size],
        second: SecondAverage,
        device: torch.device,
    ) -> None:
        """Start from the masters, as the first average does."""
        super().__init__(held, shapes, second.decay, device)
        self.until = second.until

    def update(self, num_updates: int) -> None:
        """Move towards the current masters, or do nothing after `until` updates."""
        if num_updates < self.until:
            super().update(num_updates)


def with_second(first: Mapping[str, Tensor], second: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the final weights: those of the first average and, under prefixed names, those of the second."""
    return {**first, **{f"{SECOND}{name}": value for name, value in (second or {}).items()}}


def apart(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split final weights into those of the first and of the second average; the latter are empty if there is no second average."""
    first = {name: value for name, value in weights.items() if not name.startswith(SECOND)}
    second = {name.removeprefix(SECOND): value for name, value in weights.items() if name not in first}
    return first, second


def state_of(averages: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return a state dict of whole averages and frozen weights, with a tied weight under each of its names, and the model's buffers."""
    first: dict[int, str] = {
        id(parameter): name for name, parameter in reversed(list(model.named_parameters()))
    }
    tied = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    buffers = {name: value for name, value in model.state_dict().items() if name not in tied}
    averaged = {name: averages[original] for name, original in tied.items()}
    return {
        name: value.detach().cpu().contiguous().clone() for name, value in {**averaged, **buffers}.items()
    }


def _chunks(shapes: Mapping[str, torch.Size]) -> Iterator[list[str]]:
    """Yield the names in groups small enough to gather at once."""
    chunk, size = list[str](), 0
    for name, shape in shapes.items():
        chunk.append(name)
        size += shape.numel()
        if size >= GATHERED_NUMEL:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
