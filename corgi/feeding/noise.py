"""The random draws of a training: a pure function of (seed, draw, position in the whole run).

A row's noise does not depend on its batch, its worker or earlier draws, so a run is the same with any number of workers and
after any restart.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.philox import INTEGERS, NORMAL, UNIFORM, Stream, integers, normals, seeds_of, uniforms


class Noise:
    """The random draws of one batch's rows; `positions` counts rows over the whole run, epochs included."""

    def __init__(
        self, seed: int, positions: Int[Tensor, "batch"], device: torch.device | str = "cpu"
    ) -> None:
        """Take the rows' positions; draws are made on `device`."""
        self.first = int(positions[0]) if len(positions) else 0
        """Position of the first row."""
        self.positions = positions.to(device)
        self._seed = torch.full_like(self.positions, int(seeds_of([seed])))

    def normal(self, shape: tuple[int, ...], draw: int) -> Float[Tensor, "batch *shape"]:
        """Return standard normal values, fp32."""
        return normals(self._stream(NORMAL, draw), torch.Size(shape).numel()).view(-1, *shape)

    def uniform(self, draw: int) -> Float[Tensor, "batch"]:
        """Return values in [0, 1), fp32."""
        return uniforms(self._stream(UNIFORM, draw))

    def integers(self, low: int, high: int, draw: int) -> Int[Tensor, "batch"]:
        """Return whole numbers in [low, high), int64."""
        return integers(self._stream(INTEGERS, draw), low, high)

    def _stream(self, kind: int, draw: int) -> Stream:
        return Stream(self._seed, self.positions, kind, draw)
