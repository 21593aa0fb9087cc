"""Finite scalar quantisation (Mentzer et al. 2023, arXiv:2309.15505): each latent channel takes one of a few values.

The codebook is the grid of these values. It is not learned, so there is no commitment loss and no dead code to revive.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_EPS = 1e-3


class FiniteScalarQuantiser(nn.Module):
    """Bounds latents to -1..1 and rounds channel i to one of `levels[i]` equidistant values."""

    steps: Float[Tensor, "channels 1 1"]
    offset: Float[Tensor, "channels 1 1"]
    reach: Float[Tensor, "channels 1 1"]
    places: Int[Tensor, "channels 1 1"]

    def __init__(self, levels: tuple[int, ...]) -> None:
        """Build the grid; `levels` are the numbers of values of the channels, at least 2 each."""
        super().__init__()
        counts = torch.tensor(levels, dtype=torch.float32)[:, None, None]
        even = (counts % 2 == 0).float()
        places = torch.tensor([math.prod(levels[:n]) for n in range(len(levels))])[:, None, None]
        self.levels = levels
        self.register_buffer("steps", torch.div(counts, 2, rounding_mode="floor"), persistent=False)
        self.register_buffer("offset", even / 2, persistent=False)
        self.register_buffer("reach", (counts - 1) * (1 + _EPS) / 2, persistent=False)
        self.register_buffer("places", places, persistent=False)

    @property
    def num_codes(self) -> int:
        """Return the size of the codebook."""
        return math.prod(self.levels)

    def bound(self, raw: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return tanh of the raw latents, scaled so that rounding gives each channel its values; in -1..1."""
        shift = torch.atanh(self.offset / self.reach)
        return (torch.tanh(raw + shift) * self.reach - self.offset) / self.steps

    def rounded(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return the nearest values; the gradient passes straight through to the latents."""
        return latents + (self._steps(latents) / self.steps - latents).detach()

    def codes(self, latents: Float[Tensor, "batch channels h w"]) -> Int[Tensor, "batch h w"]:
        """Return the index of each position's code in the codebook."""
        return ((self._steps(latents) + self.steps).long() * self.places).sum(1)

    def _steps(self, latents: Tensor) -> Tensor:
        """Return latents in whole steps, clamped to the grid: a sampler's latents may be outside of it."""
        steps = (latents * self.steps).round()
        return steps.clamp(min=-self.steps).minimum(self.steps - 2 * self.offset)
