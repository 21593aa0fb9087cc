"""The decoder's networks by their names in the settings: each denoises a standardised latent, conditioned on an image embedding."""

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
    """Sizes from which every network is built; each network uses those that concern it."""

    latent_shape: tuple[int, ...]
    """Shape of the standardised latent before flattening: (channels, side, side) if its space is spatial, else (dimension,)."""
    width: int
    depth: int
    unet: UNetSizes = field(default_factory=UNetSizes)
    heads: int = 8
    """Number of attention heads of the transformer."""
    patch: int = 2
    """Side of the transformer's patches."""
    knows_level: bool = False
    """Whether the network reads the noise level of the embedding."""
    neighbours: int = 0
    """Number of train pictures whose latents the network reads."""
    pretrained: UNetConfig | None = None
    """config.json of a U-Net like Stable Diffusion's, which replaces these sizes; None for none."""
    words: tuple[int, int] = (0, 0)
    """Number and width of a caption's word encodings that a U-Net reads."""
    low_channels: int = 0
    """Number of planes of a smaller picture that the network reads in addition to the latent."""
    regression: bool = False
    """Whether the network reads, in addition to the noisy latent, the one that a linear map predicts from the image embedding."""


def mlp(sizes: NetworkSizes, table: ShiftTable) -> LatentDenoiser:
    """Build the residual MLP; ValueError for a smaller picture or a predicted latent, which it does not read."""
    if sizes.low_channels:
        raise ValueError("the residual MLP does not read a smaller picture")
    if sizes.regression:
        raise ValueError("the residual MLP does not read a predicted latent: regression is for unet and dit")
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
    """Build the U-Net; ValueError for a latent that it cannot divide, or for inputs that this kind of U-Net does not read."""
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
                "with unet.kandinsky it does not read a noise level, neighbours, words, a predicted latent or a smaller picture"
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
"""For each network that a recipe can name, the function that builds it untrained.

Each network has the interface of `corgi.models.picture_decoder.Denoiser`. It stores the table that standardises its embedding as
`embedding_table`, so that loading needs only its state dict.
"""
