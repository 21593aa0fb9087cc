"""A decoder trained on pseudo text: each picture's embedding is perturbed as far as captions are from pictures (Lafite)."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from corgi.feeding.noise import Noise
from corgi.models.language_free import fixed_perturbation

PSEUDO_TEXT = 5
"""Draw of one training sample, beside those of the decoder's objective."""


def condition(image: Float[Tensor, "batch dim"], noise: Noise, xi: float) -> Float[Tensor, "batch dim"]:
    """Return what the decoder is conditioned on: unit( z + xi eps / |eps| ), or z itself where xi is 0."""
    if xi == 0:
        return image
    return fixed_perturbation(image, noise.normal((image.shape[1],), PSEUDO_TEXT), xi)


def moments(
    mean: Float[np.ndarray, "dim"], std: Float[np.ndarray, "dim"], xi: float
) -> tuple[Float[np.ndarray, "dim"], Float[np.ndarray, "dim"]]:
    """Return mean and standard deviation of the condition, from those of unit embeddings.

    mean / sqrt(1 + xi^2) and sqrt((std^2 + xi^2 / d) / (1 + xi^2)): the noise is uniform on the sphere, of variance 1/d in each
    of d dimensions, and almost orthogonal to z.
    """
    length = np.sqrt(1 + xi**2)
    return mean / length, np.sqrt(std**2 + xi**2 / len(mean)) / length
