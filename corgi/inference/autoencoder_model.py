"""The autoencoder as a diffusers component; this module does not depend on where the weights came from."""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from corgi.models.autoencoder import Autoencoder, LinearAutoencoder
from corgi.models.latent_spaces import CODECS
from corgi.models.spatial_autoencoder import SpatialAutoencoder


class AutoencoderModel(ModelMixin, ConfigMixin):
    """Pictures <-> flat, standardised latents."""

    @register_to_config
    def __init__(self, kind: str, space: dict[str, Any], shapes: dict[str, list[int]]) -> None:
        """Build an empty autoencoder; `space` is the config that is committed with its weights, `shapes` are the shapes of the weights."""
        super().__init__()
        self.autoencoder: Autoencoder = blank(kind, space, shapes)

    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures in 0..1 [batch, 3, side, side]."""
        return self.autoencoder.decode(latents)

    def encode(self, pictures: Tensor) -> Tensor:
        """Return latents of pictures in 0..1."""
        return self.autoencoder.encode(pictures)


def blank(kind: str, space: dict[str, Any], shapes: dict[str, list[int]]) -> Autoencoder:
    """Return an autoencoder of a kind with empty weights, which are loaded later."""
    if kind == "linear":
        return LinearAutoencoder(**{name: torch.zeros(shape) for name, shape in shapes.items()})
    codecs: Any = CODECS
    return SpatialAutoencoder(codecs[kind](space["codec"]), space["image_size"])
