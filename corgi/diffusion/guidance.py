"""Classifier-free guidance in x0 form, and the choice among candidates by text cosine."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.shifted import first_largest
from corgi.diffusion.steps import Denoise


def guide(
    conditional: Float[Tensor, "*shape"], unconditional: Float[Tensor, "*shape"], scale: float
) -> Float[Tensor, "*shape"]:
    """Zhat = zhat_u + scale (zhat_c - zhat_u) (eq. 12): 1 is conditional, 0 unconditional.

    Affine with weights that sum to 1, so it is the same in x0, eps or v form and commutes with whitening.
    """
    return unconditional + scale * (conditional - unconditional)


def guided(
    conditional: Denoise,
    unconditional: Denoise,
    scale: float,
    interval: tuple[float, float] | None = None,
) -> Denoise:
    """Combine two denoisers into one; both get the same z_t, t and cluster. Scale 1 or 0 calls only one.

    Outside an interval of timesteps the scale is 1 (Kynkaanniemi et al. 2024). Both denoisers are called there too:
    reading t on the host would make it wait for the device in each step.
    """
    if scale == 1:
        return conditional
    if scale == 0 and interval is None:
        return unconditional

    def denoise(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
        return _guide_inside(conditional(z_t, t, cluster), unconditional(z_t, t, cluster), t, scale, interval)

    return denoise


def guided_in_one_batch(both: Denoise, scale: float, interval: tuple[float, float] | None = None) -> Denoise:
    """Combine as `guided` does, with one call per step: `both` gets each row twice and denoises the second half without the condition.

    One call of a network costs less than two calls of half the rows, most of all with few rows.
    """

    def denoise(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
        z_0 = both(*(torch.cat([rows, rows]) for rows in (z_t, t, cluster)))
        c, u = z_0.chunk(2)
        return _guide_inside(c, u, t, scale, interval)

    return denoise


def _guide_inside(
    c: Float[Tensor, "batch dim"],
    u: Float[Tensor, "batch dim"],
    t: Int[Tensor, "batch"],
    scale: float,
    interval: tuple[float, float] | None,
) -> Float[Tensor, "batch dim"]:
    if interval is None:
        return guide(c, u, scale)
    inside = (t >= interval[0]) & (t <= interval[1])
    return torch.where(inside[:, None], guide(c, u, scale), c)


def best_of(
    candidates: Float[Tensor, "n batch dim"], text: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch dim"]:
    """Keep for each caption the candidate with the highest text cosine, the first on ties (DALL-E 2: n = 2)."""
    cosine = (F.normalize(candidates.double(), dim=-1) * F.normalize(text.double(), dim=-1)).sum(-1)
    chosen = first_largest(cosine.mT)
    return candidates[chosen, torch.arange(candidates.shape[1], device=candidates.device)]
