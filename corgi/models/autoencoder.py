"""The latent space of the decoder: pictures <-> standardised latents; and the linear one, by principal components."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# torch, numpy and scikit-learn have functions without types

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_SCALE = 1e-4
"""Smallest scale of a latent, as a share of the largest one of its space."""


class Autoencoder(nn.Module, ABC):
    """What the decoder needs from a latent space. Latents are always flat; `latent_shape` is their shape before flattening."""

    image_size: int
    latent_shape: tuple[int, ...]
    """(channels, side, side) if the space is spatial, else (dimension,)."""

    @property
    def latent_dim(self) -> int:
        """Return the number of values of a latent."""
        return math.prod(self.latent_shape)

    @abstractmethod
    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch latent"]:
        """Return latents of about zero mean and unit variance; pictures are in 0..1."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch 3 side side"]:
        """Return pictures in 0..1."""


class LinearAutoencoder(Autoencoder):
    """Principal components: x = mean + (latent * scale) components, each latent standardised by its own scale."""

    mean: Float[Tensor, "pixels"]
    components: Float[Tensor, "latent pixels"]
    scale: Float[Tensor, "latent"]

    def __init__(
        self,
        mean: Float[Tensor, "pixels"],
        components: Float[Tensor, "latent pixels"],
        scale: Float[Tensor, "latent"],
    ) -> None:
        """Store fitted components; ValueError if the number of pixels is not that of a square RGB picture."""
        super().__init__()
        side = round((mean.numel() / 3) ** 0.5)
        if 3 * side * side != mean.numel():
            raise ValueError(f"{mean.numel()} pixels are not those of a square RGB picture")
        self.image_size, self.latent_shape = side, (len(scale),)
        for name, value in (("mean", mean), ("components", components), ("scale", scale)):
            self.register_buffer(name, value.float())

    def encode(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch latent"]:
        """Latent = (x - mean) components^T / scale."""
        return (pictures.flatten(1) - self.mean) @ self.components.mT / self.scale

    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch 3 side side"]:
        """X = mean + (latent * scale) components, clamped to 0..1."""
        pixels = self.mean + (latents.float() * self.scale) @ self.components
        return pixels.view(len(latents), 3, self.image_size, self.image_size).clamp(0, 1)


def fit_linear(pictures: Float[Tensor, "batch 3 side side"], latent_dim: int, seed: int) -> LinearAutoencoder:
    """Return the leading principal components of the pictures (randomised SVD, Halko et al. 2011, by scikit-learn)."""
    from sklearn.decomposition import PCA

    flat = pictures.flatten(1).numpy()
    num_components = min(latent_dim, *flat.shape)
    fitted = PCA(num_components, svd_solver="randomized", random_state=seed).fit(flat)
    deviation = torch.from_numpy(fitted.explained_variance_.clip(min=1e-12)).sqrt()
    mean, components = torch.from_numpy(fitted.mean_), torch.from_numpy(fitted.components_)
    return LinearAutoencoder(mean, components, floored(deviation))


def floored(deviation: Float[Tensor, "latent"]) -> Float[Tensor, "latent"]:
    """Return scales that standardise latents of these standard deviations.

    A latent that is constant on the train pictures may vary on others: divided by a scale near zero it would leave the range
    of half floats, in which latents are stored.
    """
    return deviation.clamp(min=SMALLEST_SCALE * float(deviation.max()))
