"""Latent spaces that keep the picture's plane: a codec's latents, standardised per channel."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from corgi.models.autoencoder import Autoencoder, floored


class Codec(nn.Module, ABC):
    """Pictures <-> latents of any scale, on a plane that is smaller or of the same size."""

    @abstractmethod
    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return (channels, side, side) of the latents of a picture of that side."""

    @abstractmethod
    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch channels h h"]:
        """Return latents; pictures are in 0..1."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "batch channels h h"]) -> Float[Tensor, "batch 3 side side"]:
        """Return pictures, whose values may be slightly outside 0..1."""


class PixelCodec(Codec):
    """The picture itself."""

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return the picture's own shape."""
        return 3, image_size, image_size

    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
        """Return the pictures."""
        return pictures

    def decode(self, latents: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
        """Return the latents."""
        return latents


class SpatialAutoencoder(Autoencoder):
    """A codec whose latents are standardised by one mean and one scale per channel, and flattened."""

    mean: Float[Tensor, "channels"]
    scale: Float[Tensor, "channels"]

    def __init__(self, codec: Codec, image_size: int) -> None:
        """Wrap a codec; mean and scale are 0 and 1 until they are measured or loaded."""
        super().__init__()
        self.codec, self.image_size = codec, image_size
        self.latent_shape = codec.latent_shape(image_size)
        self.register_buffer("mean", torch.zeros(self.latent_shape[0]))
        self.register_buffer("scale", torch.ones(self.latent_shape[0]))

    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch latent"]:
        """Latent = (codec(x) - mean) / scale, per channel."""
        latents = self.codec.encode(pictures).float()
        return ((latents - self.mean[:, None, None]) / self.scale[:, None, None]).flatten(1)

    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch 3 side side"]:
        """X = codec^-1(latent * scale + mean), clamped to 0..1."""
        plane = latents.float().view(-1, *self.latent_shape)
        pictures = self.codec.decode(plane * self.scale[:, None, None] + self.mean[:, None, None])
        return pictures.float().clamp(0, 1)

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Set mean and scale to the moments of the codec's latents over batches [n, 3, side, side], summed in float64."""
        count, total, squares = 0, 0.0, 0.0
        for pictures in batches:
            latents = self.codec.encode(pictures).double()
            count += latents[:, 0].numel()
            total = total + latents.sum((0, 2, 3))
            squares = squares + latents.square().sum((0, 2, 3))
        assert isinstance(total, Tensor)
        assert isinstance(squares, Tensor)
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=1e-12)
        self.mean.copy_(mean)
        self.scale.copy_(floored(variance.sqrt()))


def pixel_space(image_size: int) -> SpatialAutoencoder:
    """Return the latent space of the pictures' own pixels, scaled to -1..1."""
    space = SpatialAutoencoder(PixelCodec(), image_size)
    space.mean.fill_(0.5)
    space.scale.fill_(0.5)
    return space
