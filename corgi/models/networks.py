"""The decoder's networks by their names in the settings: each denoises a standardised latent, given an image embedding."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.denoiser import DenoiserConfig, LatentDenoiser
from corgi.names import NetworkName


@dataclass(frozen=True)
class NetworkSizes:
    """What every network is built from."""

    latent_shape: tuple[int, ...]
    """What the flat, standardised latent is flattened from: (channels, side, side) where its space is spatial, else (dimension,)."""
    width: int
    depth: int


def mlp(sizes: NetworkSizes, table: ShiftTable) -> LatentDenoiser:
    """Build the residual MLP."""
    latent_dim = math.prod(sizes.latent_shape)
    return LatentDenoiser(DenoiserConfig(latent_dim, table.dim, sizes.width, sizes.depth), table)


NETWORKS: Mapping[NetworkName, Callable[[NetworkSizes, ShiftTable], nn.Module]] = {"mlp": mlp}
"""Every network that a recipe can name, by what builds it untrained.

Each is called as `corgi.models.picture_decoder.Denoiser` says and keeps the table that standardises its embedding as
`embedding_table`, so that its state dict is all that loading needs.
"""
