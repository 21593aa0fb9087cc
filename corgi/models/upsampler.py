"""An upsampler of the cascade: from a smaller picture and its image embedding to a larger picture, by diffusion on pixels.

The network is conditioned on the smaller picture, enlarged to the larger side, with a little noise whose level it reads: that
makes it tolerant of a decoder's errors (cascaded diffusion, Ho et al. 2022). A network without attention is trained on
crops and paints whole pictures (unCLIP, Ramesh et al. 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from corgi.diffusion.philox import MAX_DRAWS
from corgi.diffusion.samplers import philox_noise
from corgi.models.picture_decoder import PictureDecoder, Watch, unit_range

LOW_NOISE = MAX_DRAWS - 1
"""Index of the draw that is the smaller picture's noise; the sampler's draws are counted from 0."""
STEP_SEED_OFFSET = 600_011
"""Added to seeds so that the noise of each upsampler differs from the others' and the decoder's for the same seed."""
PIXELS_AT_ONCE = 64 * 64 * 64
"""Pixels of the larger pictures painted together. Guidance gives the network each of them twice per call."""
Watching = Callable[[PictureDecoder], Watch]
"""Returns the function to call with a network's estimates after each of its steps."""


@dataclass(frozen=True)
class Upsampler:
    """p(large picture | small picture, z)."""

    painter: PictureDecoder
    """Paints pixels of the larger side."""
    low_side: int
    level: float
    """Share of noise that is added to the smaller picture."""
    steps: int
    guidance: float

    @property
    def side(self) -> int:
        """Return the side of the pictures that it paints, px."""
        return self.painter.autoencoder.image_size

    @property
    def manner(self) -> dict[str, object]:
        """Return its settings for painting, as JSON."""
        return {
            "side": self.side,
            "low_noise": self.level**0.5,
            "steps": self.steps,
            "guidance": self.guidance,
            **self.painter.manner,
        }

    @torch.no_grad()
    def sample(
        self,
        pictures: UInt8[Tensor, "batch low_side low_side 3"],
        embedding: Float[Tensor, "batch dim"],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> UInt8[Tensor, "batch side side 3"]:
        """Paint larger versions of pictures, on the upsampler's device; row i depends only on its picture, its embedding and seeds[i].

        `watch` is called with each step's estimate of the larger pictures' pixels, for a few pictures at a time.
        """
        at_once = max(1, PIXELS_AT_ONCE // self.side**2)
        parts = [
            self._paint(
                pictures[first : first + at_once],
                embedding[first : first + at_once],
                seeds[first : first + at_once],
                watch,
            )
            for first in range(0, max(1, len(pictures)), at_once)
        ]
        return torch.cat(parts)

    def _paint(
        self, pictures: Tensor, embedding: Tensor, seeds: Sequence[int], watch: Watch | None
    ) -> Tensor:
        device = self.painter.device
        small = unit_range(pictures.to(device).permute(0, 3, 1, 2))
        low = self.painter.autoencoder.encode(enlarged(small, self.side))
        share = torch.full((len(low),), self.level, device=device)
        low = noised(low, philox_noise(seeds, low.shape[1], device)(LOW_NOISE), share)
        given = {"low": low, "low_level": share}
        return self.painter.sample(embedding, seeds, self.steps, self.guidance, watch, given=given)


def upsampled(
    upsamplers: Sequence[Upsampler],
    pictures: UInt8[Tensor, "batch side side 3"],
    embedding: Float[Tensor, "batch dim"],
    seeds: Sequence[int],
    watching: Watching | None = None,
) -> UInt8[Tensor, "batch larger larger 3"]:
    """Return pictures after all upsamplers of a cascade, unchanged if there are none."""
    for number, upsampler in enumerate(upsamplers, start=1):
        own = [seed + number * STEP_SEED_OFFSET for seed in seeds]
        watch = None if watching is None else watching(upsampler.painter)
        pictures = upsampler.sample(pictures, embedding, own, watch)
    return pictures


def shrunk(pictures: Float[Tensor, "batch 3 side side"], side: int) -> Float[Tensor, "batch 3 low low"]:
    """Return pictures in 0..1 at a smaller side, by bicubic interpolation with antialiasing."""
    return F.interpolate(pictures, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def enlarged(pictures: Float[Tensor, "batch 3 low low"], side: int) -> Float[Tensor, "batch 3 side side"]:
    """Return pictures in 0..1 at a larger side, by bicubic interpolation."""
    return F.interpolate(pictures, (side, side), mode="bicubic").clamp(0, 1)


def cropped(
    pictures: Float[Tensor, "batch 3 side side"], corner: Int[Tensor, "batch 2"], side: int
) -> Float[Tensor, "batch 3 crop crop"]:
    """Return a square crop of each picture; `corner` is its first row and column."""
    offset = torch.arange(side, device=pictures.device)
    picture = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    rows, columns = corner[:, :1] + offset, corner[:, 1:] + offset
    return pictures[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def noised(
    low: Float[Tensor, "batch dim"], noise: Float[Tensor, "batch dim"], share: Float[Tensor, "batch"]
) -> Float[Tensor, "batch dim"]:
    """Return sqrt(1 - s) x + sqrt(s) noise for each row's share s of noise."""
    return (1 - share)[:, None].sqrt() * low + share[:, None].sqrt() * noise
