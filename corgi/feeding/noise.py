"""Randomness by counter: a pure function of (seed, draw, position in the whole run).

A row's noise does not depend on the batch it came in, the worker that got it, or what was drawn before,
so a run is the same at any number of workers and after any restart. Philox4x64 (Salmon et al. 2011) takes
(seed, draw) as its key and the row's position as the second word of its counter.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORD = 2**64
_NORMAL, _UNIFORM, _INTEGERS = 0, 1, 2


class Noise:
    """The random draws of one batch's rows; `positions` counts rows over the whole run, epochs included."""

    def __init__(
        self, seed: int, positions: Int[Tensor, "batch"], device: torch.device | str = "cpu"
    ) -> None:
        """Take the rows' positions; draws are made on the CPU and handed over on `device`."""
        self.seed = seed
        self.device = torch.device(device)
        self.positions = positions.to(self.device)
        self._counters = np.array(positions.tolist(), np.uint64)

    def normal(self, shape: tuple[int, ...], draw: int) -> Float[Tensor, "batch *shape"]:
        """Return standard normal values, fp32."""
        values = np.empty((len(self._counters), int(np.prod(shape, dtype=np.int64))), np.float32)
        for bits, row in zip(self._bits(_NORMAL, draw), values, strict=True):
            bits.standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(values.reshape(-1, *shape)).to(self.device)

    def uniform(self, draw: int) -> Float[Tensor, "batch"]:
        """Return values in [0, 1), fp32."""
        values = [bits.random(dtype=np.float32) for bits in self._bits(_UNIFORM, draw)]
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def integers(self, low: int, high: int, draw: int) -> Int[Tensor, "batch"]:
        """Return whole numbers in [low, high), int64."""
        values = [int(bits.integers(low, high)) for bits in self._bits(_INTEGERS, draw)]
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _bits(self, kind: int, draw: int) -> Iterator[np.random.Generator]:
        """Yield one generator moved to each row's own counter in turn: making one a row takes twice the time."""
        philox = np.random.Philox(key=np.array([self.seed % _WORD, draw % _WORD], np.uint64))
        bits = np.random.Generator(philox)
        start = philox.state
        counter = start["state"]["counter"]
        for position in self._counters:
            counter[:] = (0, position, 0, kind)
            philox.state = start
            yield bits
