"""diffusers' autoencoders as codecs; their latents are shifted and scaled as in their own pipelines."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers has no types

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from jaxtyping import Float
from torch import Tensor, nn

from corgi.models.spatial_autoencoder import Codec
from corgi.names import AutoencoderConfig

CLASSES: Mapping[str, Any] = {
    kind.__name__: kind for kind in (AutoencoderKL, VQModel, AutoencoderTiny, AutoencoderDC)
}
"""The supported classes, by their name in config.json."""
_RAW: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "AutoencoderKL": lambda model, pictures: model.encode(pictures).latent_dist.mode(),
    "VQModel": lambda model, pictures: model.encode(pictures).latents,
    "AutoencoderTiny": lambda model, pictures: model.encode(pictures).latents,
    "AutoencoderDC": lambda model, pictures: model.encode(pictures).latent,
}
"""Functions that return the latents of pictures in -1..1: for AutoencoderKL the posterior's mode, for VQModel those before quantisation."""


class PretrainedCodec(Codec):
    """One of diffusers' autoencoders: latent = (raw - shift_factor) * scaling_factor; VQModel quantises when it decodes, unless its config has `quantise` false."""

    def __init__(self, model: nn.Module, config: AutoencoderConfig) -> None:
        """Wrap a model and the config it was built from, which names its class."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.kind = str(config["_class_name"])
        self.scaling_factor = float(config["scaling_factor"])
        self.shift_factor = float(config.get("shift_factor") or 0.0)
        self.quantises = self.kind == "VQModel" and bool(config.get("quantise", True))

    @torch.no_grad()
    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return the shape of a picture's latents.

        Raises:
            ValueError: the model does not reconstruct a picture of that shape, or its latents are not square.

        """
        device = next(self.model.parameters()).device
        grey = torch.full((1, 3, image_size, image_size), 0.5, device=device)
        latents = self.encode(grey)
        if self.decode(latents).shape != grey.shape:
            raise ValueError(f"it does not return pictures of 3 x {image_size} x {image_size}")
        _, channels, height, width = latents.shape
        if height != width:
            raise ValueError("its latents of a square picture are not square")
        return channels, height, width

    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch channels h h"]:
        """Return shifted and scaled latents, without a random draw."""
        raw = _RAW[self.kind](self.model, 2 * pictures - 1)
        return (raw - self.shift_factor) * self.scaling_factor

    def decode(self, latents: Float[Tensor, "batch channels h h"]) -> Float[Tensor, "batch 3 side side"]:
        """Return pictures in about 0..1."""
        model: Any = self.model
        options = {"force_not_quantize": not self.quantises} if self.kind == "VQModel" else {}
        return (model.decode(latents / self.scaling_factor + self.shift_factor, **options).sample + 1) / 2


def untrained(config: AutoencoderConfig) -> PretrainedCodec:
    """Return the codec of a config with random weights."""
    return PretrainedCodec(CLASSES[config["_class_name"]].from_config(dict(config)), config)
