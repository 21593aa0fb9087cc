"""Text features without text, and image embeddings without a trained prior: the baselines that a prior is compared with.

A text-to-image model can do without captions of its own pictures in two ways. A decoder may be trained on a pseudo text
feature h of each picture instead of its embedding z, and then takes a caption's embedding directly (Lafite; Zhou et al. 2022,
arXiv 2111.13792; Lafite2, arXiv 2210.14124). Or a caption's embedding is turned into an image embedding by means of existing
rows, with the interface of a prior: `CaptionEmbedder`.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# torch has functions without types

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from corgi.models.embedder import CaptionEmbedder, Embeddings

WIDTH = 1024
"""Hidden width of Lafite's two networks."""
SAME_PICTURE = 1 - 1e-5
"""Embeddings with a larger cosine belong to the same picture."""


@dataclass(frozen=True)
class RawText(CaptionEmbedder):
    """z = y / |y|: the caption's embedding itself. A lower bound, and the input of decoders trained on pseudo text."""

    def of_text(self, text: Embeddings) -> Embeddings:
        """Return the text embeddings at unit norm."""
        return F.normalize(text, dim=-1)


@dataclass(frozen=True)
class SoftmaxAverage(CaptionEmbedder):
    """z = unit( sum_i softmax_i(cos(y, y_i) / tau) z_i ) over captioned pictures (y_i, z_i); needs no training."""

    text: Float[Tensor, "rows dim"]
    image: Float[Tensor, "rows dim"]
    temperature: float = 0.05

    def of_text(self, text: Embeddings) -> Embeddings:
        """Return the averages."""
        return attended(text, self.text.to(text), self.image.to(text), self.temperature)


@dataclass(frozen=True)
class NearestPictures(CaptionEmbedder):
    """z = unit( mean of the k picture embeddings nearest to y ): needs no caption (kNN-Diffusion, arXiv 2204.02849)."""

    image: Float[Tensor, "rows dim"]
    number: int = 5

    def of_text(self, text: Embeddings) -> Embeddings:
        """Return the means of each caption's nearest pictures."""
        return nearest_mean(text, self.image.to(text), self.number)


@dataclass(frozen=True)
class TrueEmbedding(CaptionEmbedder):
    """z itself, row by row: the upper bound. It is no function of the caption."""

    image: Float[Tensor, "rows dim"]

    def of_text(self, text: Embeddings) -> Embeddings:
        """Return the stored rows at unit norm; ValueError for another number of captions."""
        if len(text) != len(self.image):
            raise ValueError(f"{len(text)} captions, but {len(self.image)} true embeddings")
        return F.normalize(self.image.to(text), dim=-1)


def fixed_perturbation(
    z: Float[Tensor, "batch dim"], eps: Float[Tensor, "batch dim"], xi: float
) -> Float[Tensor, "batch dim"]:
    """Return Lafite's pseudo text h = unit( z + xi |z| eps / |eps| ).

    In many dimensions eps is nearly orthogonal to z, so cos(h, z) concentrates at 1 / sqrt(1 + xi^2) whatever the dimension; xi = 0
    gives unit(z).
    """
    step = xi * z.norm(dim=-1, keepdim=True) * F.normalize(eps, dim=-1)
    return F.normalize(z + step, dim=-1)


def xi_of(cosine: float) -> float:
    """Return xi = sqrt(1 / c^2 - 1), at which h is as far from z as captions are: c is their measured cosine.

    ValueError unless c is in (0, 1].
    """
    if not 0 < cosine <= 1:
        raise ValueError(f"the cosine of captions and pictures must be in (0, 1], got {cosine}")
    return (1 / cosine**2 - 1) ** 0.5


class TrainablePerturbation(nn.Module):
    """Lafite's pseudo text h = unit( z + r1(z) + exp(r2(z)) eps ), r1 and r2 networks of four layers with leaky ReLU.

    It is trained by `contrastive` on pictures and captions of another domain, so that h of a picture is closest to its own caption.
    """

    def __init__(self, dim: int, width: int = WIDTH) -> None:
        """Build both networks; their last layers start at zero, so that h starts as unit(z + eps)."""
        super().__init__()
        self.shift, self.log_scale = _four_layers(dim, width), _four_layers(dim, width)

    def forward(
        self, z: Float[Tensor, "batch dim"], eps: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return pseudo text features of unit norm."""
        return F.normalize(z + self.shift(z) + self.log_scale(z).exp() * eps, dim=-1)


def contrastive(
    h: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"], temperature: float
) -> Float[Tensor, ""]:
    """Return - mean_i log softmax_j( cos(h_i, target_j) / tau ) at j = i: small if each row is closest to its own target in the batch."""
    cosine = F.normalize(h, dim=-1) @ F.normalize(target, dim=-1).mT
    return F.cross_entropy(cosine / temperature, torch.arange(len(h), device=h.device))


def retrieved(
    z: Float[Tensor, "batch dim"], pool: Float[Tensor, "texts dim"], number: int, temperature: float
) -> Float[Tensor, "batch dim"]:
    """Return h_0 = unit( sum over the k texts nearest to z of softmax(cos(z, y) / tau) y ); the pool needs no pairing."""
    cosine, rows = (F.normalize(z, dim=-1) @ F.normalize(pool, dim=-1).mT).topk(min(number, len(pool)))
    weights = (cosine / temperature).softmax(-1)
    return F.normalize((weights[..., None] * F.normalize(pool, dim=-1)[rows]).sum(1), dim=-1)


def told_apart(
    h: Float[Tensor, "batch dim"],
    z: Float[Tensor, "batch dim"],
    others: Float[Tensor, "others dim"],
    temperature: float,
) -> Float[Tensor, "batch"]:
    """Return each row's - log softmax( cos(h_i, z_i) / tau ) over its own picture and those of `others` that are not z_i itself.

    It is `contrastive` with a fixed set of others: a row's value does not depend on the rest of its batch.
    """
    unit_z, unit_others = F.normalize(z, dim=-1), F.normalize(others, dim=-1)
    own = (F.normalize(h, dim=-1) * unit_z).sum(-1, keepdim=True) / temperature
    cosine = F.normalize(h, dim=-1) @ unit_others.mT / temperature
    cosine = cosine.masked_fill(unit_z @ unit_others.mT > SAME_PICTURE, -torch.inf)
    return torch.logsumexp(torch.cat([own, cosine], dim=1), dim=1) - own[:, 0]


def optimised(
    h: Float[Tensor, "batch dim"],
    z: Float[Tensor, "batch dim"],
    others: Float[Tensor, "others dim"],
    steps: int = 10,
    rate: float = 0.1,
    temperature: float = 0.05,
) -> Float[Tensor, "batch dim"]:
    """Return text features after gradient steps on `told_apart`, at unit norm after each (Lafite2's idea).

    They distinguish their own picture from the others better than the retrieved features do.
    """
    feature = F.normalize(h, dim=-1).detach()
    with torch.enable_grad():
        for _ in range(steps):
            feature.requires_grad_(True)
            loss = told_apart(feature, z.detach(), others, temperature).sum()
            [slope] = torch.autograd.grad(loss, feature)
            feature = F.normalize(feature.detach() - rate * temperature * slope, dim=-1)
    return feature


def attended(
    query: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "rows dim"],
    values: Float[Tensor, "rows dim"],
    temperature: float,
) -> Float[Tensor, "batch dim"]:
    """Return unit( sum_i softmax_i(cos(query, key_i) / tau) value_i )."""
    cosine = F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).mT
    return F.normalize((cosine / temperature).softmax(-1) @ values, dim=-1)


def nearest_mean(
    query: Float[Tensor, "batch dim"], image: Float[Tensor, "rows dim"], number: int
) -> Float[Tensor, "batch dim"]:
    """Return the unit mean of the k rows of largest cosine, the lowest rows first on ties."""
    cosine = F.normalize(query, dim=-1) @ F.normalize(image, dim=-1).mT
    rows = cosine.sort(dim=-1, descending=True, stable=True).indices[:, :number]
    return F.normalize(F.normalize(image, dim=-1)[rows].mean(1), dim=-1)


def _four_layers(dim: int, width: int) -> nn.Sequential:
    last = nn.Linear(width, dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(dim, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        last,
    )
