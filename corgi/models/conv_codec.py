"""The convolutional autoencoder of the latent spaces kl and vq."""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from corgi.models.codebook import LearnedCodebook
from corgi.models.quantiser import FiniteScalarQuantiser
from corgi.models.spatial_autoencoder import Codec

UNSHUFFLE = 2
"""A pixel-unshuffle comes first: no convolution runs at the picture's own side."""


@dataclass(frozen=True)
class ConvConfig:
    """Describe the network; the defaults are the demo's, with 2.1 M parameters."""

    widths: tuple[int, ...] = (32, 96, 192)
    """Channels of each level; the first has half the picture's side, and each further level halves the side."""
    blocks: int = 1
    """Residual blocks per level, in the encoder and in the decoder."""
    channels: int = 8
    """Latent channels; unused if `levels` is set."""
    levels: tuple[int, ...] = ()
    """Values per latent channel of a finite scalar quantiser; empty for none."""
    num_codes: int = 0
    """Codes of a learned codebook; 0 for none."""

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return (channels, side, side) of the latents of a picture of that side; each level halves it."""
        side = image_size // 2 ** len(self.widths)
        return len(self.levels) or self.channels, side, side


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))); the second convolution starts at zero."""

    def __init__(self, width: int) -> None:
        """Build the block."""
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, hidden: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """Apply the block."""
        return hidden + self.second(F.silu(self.first(F.silu(hidden))))


class ConvCodec(Codec):
    """Pixel-unshuffle, residual blocks and stride-2 convolutions down, pixel-shuffles up; all channels-last.

    Except with a finite scalar quantiser, the latents of each picture have a mean square of 1. Adding noise of a fixed standard
    deviation is then equivalent to the KL term of a VAE with a fixed posterior variance, whose only other part, the mean square, is
    constant.
    """

    def __init__(self, config: ConvConfig) -> None:
        """Build untrained weights."""
        super().__init__()
        self.config = config
        self.quantiser = _quantiser(config)
        (channels, _, _), widths = config.latent_shape(0), config.widths
        colours = 3 * UNSHUFFLE**2
        down: list[nn.Module] = [nn.Conv2d(colours, widths[0], 3, padding=1), *_blocks(config, widths[0])]
        for width, next_width in itertools.pairwise(widths):
            down += [nn.Conv2d(width, next_width, 4, stride=2, padding=1), *_blocks(config, next_width)]
        self.down = nn.ModuleList([*down, nn.Conv2d(widths[-1], channels, 3, padding=1)])
        up: list[nn.Module] = [nn.Conv2d(channels, widths[-1], 3, padding=1), *_blocks(config, widths[-1])]
        for width, next_width in itertools.pairwise(reversed(widths)):
            up += [*_enlarged(nn.Conv2d(width, 4 * next_width, 1), 2), *_blocks(config, next_width)]
        self.up = nn.ModuleList([*up, *_enlarged(nn.Conv2d(widths[0], colours, 3, padding=1), UNSHUFFLE)])

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return the shape that the config determines."""
        return self.config.latent_shape(image_size)

    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch channels h h"]:
        """Return latents before they are rounded: bounded by a finite scalar quantiser, else of mean square 1 per picture."""
        plane = F.pixel_unshuffle(2 * pictures - 1, UNSHUFFLE)
        raw = _through(self.down, plane).float()
        if isinstance(self.quantiser, FiniteScalarQuantiser):
            return self.quantiser.bound(raw)
        return raw * (raw.square().mean((1, 2, 3), keepdim=True) + 1e-8).rsqrt()

    def decode(self, latents: Float[Tensor, "batch channels h h"]) -> Float[Tensor, "batch 3 side side"]:
        """Return pictures; a quantiser rounds the latents first."""
        codes = latents if self.quantiser is None else self.quantiser.rounded(latents)
        return (_through(self.up, codes) + 1) / 2

    def forward(
        self, pictures: Float[Tensor, "batch 3 side side"], noise: Float[Tensor, "batch channels h h"]
    ) -> tuple[Float[Tensor, "batch 3 side side"], Float[Tensor, "batch channels h h"]]:
        """Return the pictures decoded from latents + noise, and the latents."""
        latents = self.encode(pictures)
        return self.decode(latents + noise), latents


@torch.no_grad()
def _enlarged(conv: nn.Conv2d, factor: int) -> list[nn.Module]:
    """Return a convolution and the pixel-shuffle of its planes, which at the start only repeats pixels.

    With independent weights for the factor^2 pixels of a cell, pictures begin with a chequer that training must first remove (Aitken et al.
    2017, arXiv 1707.02937).
    """
    cell = factor**2
    for values in (conv.weight, conv.bias):
        assert values is not None
        values.copy_(values[::cell].repeat_interleave(cell, dim=0))
    return [conv, nn.PixelShuffle(factor)]


def _quantiser(config: ConvConfig) -> FiniteScalarQuantiser | LearnedCodebook | None:
    if config.levels:
        return FiniteScalarQuantiser(config.levels)
    return LearnedCodebook(config.num_codes, config.channels) if config.num_codes else None


def _through(layers: nn.ModuleList, plane: Tensor) -> Tensor:
    """Apply layers one after the other, channels last; in a module list, the blocks can be recomputed in the backward pass."""
    plane = plane.contiguous(memory_format=torch.channels_last)
    for layer in layers:
        plane = layer(plane)
    return plane


def _blocks(config: ConvConfig, width: int) -> list[nn.Module]:
    return [ResidualBlock(width) for _ in range(config.blocks)]
