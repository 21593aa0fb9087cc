"""What a training measures about itself: means of its metrics, step times, and its use of the hardware."""

import math
import resource
import time
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from corgi.training.cost import PEAK_FLOPS
from corgi.training.ranks import gathered


class Means:
    """Means over steps and ranks, summed without waiting for the device."""

    def __init__(self, totals: dict[str, float] | None = None, count: int = 0) -> None:
        """Continue from totals stored in a checkpoint."""
        self.totals = dict(totals or {})
        self.count = count
        self._pending: dict[str, Tensor] = {}

    def add(self, parts: list[dict[str, Tensor]], weights: list[float]) -> None:
        """Add one step's metrics: the mean over its micro-batches of value times weight; the weights of all ranks average to one."""
        self.count += 1
        for name in parts[0]:
            values = [part[name].detach().double() * w for part, w in zip(parts, weights, strict=True)]
            value = torch.stack(values).mean()
            self._pending[name] = self._pending[name] + value if name in self._pending else value

    def fold(self) -> None:
        """Average what was added over all ranks and add it to the totals; a collective."""
        if not self._pending:
            return
        everyone = gathered({name: value.item() for name, value in self._pending.items()})
        for name in self._pending:
            share = math.fsum(part[name] for part in everyone) / len(everyone)
            self.totals[name] = self.totals.get(name, 0.0) + share
        self._pending = {}

    def take(self) -> dict[str, float]:
        """Return the means since the last call; empty if no step was counted."""
        self.fold()
        means = {name: total / self.count for name, total in self.totals.items()} if self.count else {}
        self.totals, self.count = {}, 0
        return means

    def state(self) -> tuple[dict[str, float], int]:
        """Return what a checkpoint stores; call fold first."""
        return self.totals, self.count


_Batch = TypeVar("_Batch")


class Clock:
    """Measures the steps since the last lap: seconds in total, waiting for data, and for checkpoints."""

    def __init__(self) -> None:
        """Start the first lap."""
        self._begin()

    def waiting(self, batches: Iterator[_Batch]) -> Iterator[_Batch]:
        """Yield from an iterator, counting the time it takes."""
        while True:
            before = time.perf_counter()
            item = next(batches, None)
            if item is None:
                return
            self._taken = time.perf_counter()
            self._waited += self._taken - before
            yield item

    def stepped(self) -> None:
        """End the step whose data was read last."""
        self._steps.append(time.perf_counter() - self._taken)

    def stalled(self, seconds: float) -> None:
        """Count seconds spent on a checkpoint."""
        self._stalled += seconds

    def lap(self, global_batch: int) -> dict[str, float]:
        """End the lap and return its figures."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        steps = max(1, len(self._steps))
        times = sorted(self._steps) or [seconds]
        figures = {
            "samples_per_s": steps * global_batch / seconds,
            "step_time_s": seconds / steps,
            **{f"step_time_p{q}_s": times[min(len(times) - 1, len(times) * q // 100)] for q in (50, 95, 99)},
            "data_wait_share": self._waited / seconds,
            "checkpoint_share": self._stalled / seconds,
        }
        self._begin()
        return figures

    def _begin(self) -> None:
        self._start = self._taken = time.perf_counter()
        self._waited = self._stalled = 0.0
        self._steps: list[float] = []


def peak_tflops(configured: float, device: torch.device) -> float:
    """Return the peak of a worker's device in TFLOP/s: the configured value, else the one for the GPU's name; 0 if unknown."""
    if configured or device.type != "cuda":
        return configured
    name = torch.cuda.get_device_name(device)
    return next((peak / 1e12 for part, peak in PEAK_FLOPS.items() if part in name), 0.0)


def memory_gib(device: torch.device) -> float:
    """Return the peak memory of this worker so far, in GiB: allocated on the GPU, or its resident set size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
