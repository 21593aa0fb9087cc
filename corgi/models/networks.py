"""The decoder's networks by their names in the settings: each denoises a standardised latent, given an image embedding."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.denoiser import DenoiserConfig, LatentDenoiser
from corgi.models.dit import DiT, DiTSizes
from corgi.models.kandinsky_unet import KandinskyUNet
from corgi.models.pretrained_unet import PretrainedUNet
from corgi.models.unet import UNet, UNetSizes
from corgi.names import NetworkName, UNetConfig


@dataclass(frozen=True)
class NetworkSizes:
    """What every network is built from; each reads its own part."""

    latent_shape: tuple[int, ...]
    """What the flat, standardised latent is flattened from: (channels, side, side) where its space is spatial, else (dimension,)."""
    width: int
    depth: int
    unet: UNetSizes = field(default_factory=UNetSizes)
    heads: int = 8
    """Attention heads of the transformer."""
    patch: int = 2
    """Side of its patches."""
    knows_level: bool = False
    """Whether the network is told the level of noise on the embedding."""
    neighbours: int = 0
    """Train pictures whose latents the network reads."""
    pretrained: UNetConfig | None = None
    """config.json of a U-Net of Stable Diffusion's class in place of these sizes; None: none."""
    words: tuple[int, int] = (0, 0)
    """Number and width of a caption's word encodings that a U-Net reads."""
    low_channels: int = 0
    """Planes of a smaller picture that it reads beside the latent."""
    regression: bool = False
    """Whether it reads the latent that a linear map predicts from the image embedding beside the noisy one."""


def mlp(sizes: NetworkSizes, table: ShiftTable) -> LatentDenoiser:
    """Build the residual MLP; ValueError for a smaller picture or a predicted latent, which it does not read."""
    if sizes.low_channels:
        raise ValueError("the residual MLP reads no smaller picture")
    if sizes.regression:
        raise ValueError("the residual MLP reads no predicted latent: regression is for unet and dit")
    config = DenoiserConfig(
        math.prod(sizes.latent_shape),
        table.dim,
        sizes.width,
        sizes.depth,
        knows_level=sizes.knows_level,
        neighbours=sizes.neighbours,
    )
    return LatentDenoiser(config, table)


def unet(sizes: NetworkSizes, table: ShiftTable) -> UNet | PretrainedUNet | KandinskyUNet:
    """Build the U-Net; ValueError for a latent that it cannot divide, or for what one of another kind does not read."""
    if sizes.pretrained is not None:
        if sizes.neighbours or sizes.low_channels or sizes.regression:
            raise ValueError(
                "a pretrained U-Net reads neither neighbours nor a smaller picture nor a predicted latent"
            )
        tokens = sizes.unet.tokens
        return PretrainedUNet(
            sizes.latent_shape, sizes.pretrained, table, tokens, sizes.knows_level, sizes.words
        )
    if sizes.unet.kandinsky:
        if any((sizes.knows_level, sizes.neighbours, sizes.words[0], sizes.low_channels, sizes.regression)):
            raise ValueError(
                "with unet.kandinsky it reads no level of noise, neighbours, words or predicted latent, and no smaller picture"
            )
        return KandinskyUNet(sizes.latent_shape, sizes.unet, table)
    seen = sizes.neighbours, sizes.words, sizes.low_channels, sizes.regression
    return UNet(sizes.latent_shape, sizes.unet, table, sizes.knows_level, *seen)


def dit(sizes: NetworkSizes, table: ShiftTable) -> DiT:
    """Build the transformer; ValueError for a latent that its patches do not tile."""
    shape = DiTSizes(sizes.width, sizes.depth, sizes.heads, sizes.patch)
    seen = sizes.neighbours, sizes.low_channels, sizes.regression
    return DiT(sizes.latent_shape, shape, table, sizes.knows_level, *seen)


NETWORKS: Mapping[NetworkName, Callable[[NetworkSizes, ShiftTable], nn.Module]] = {
    "mlp": mlp,
    "unet": unet,
    "dit": dit,
}
"""Every network that a recipe can name, by what builds it untrained.

Each is called as `corgi.models.picture_decoder.Denoiser` says and keeps the table that standardises its embedding as
`embedding_table`, so that its state dict is all that loading needs.
"""
