"""One step of each native sampler, as the distribution of z_s, and the types of what every sampler takes: a network and noise."""

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.shifted import Gaussian, ShiftedDiffusion

Noise = Callable[[int], Tensor]
"""Returns standard normal noise [batch, dim] for the index of a draw."""


@runtime_checkable
class Denoise(Protocol):
    """A network as the samplers see it: (z_t, original t in 1..T, cluster) -> estimate of z_0."""

    def __call__(
        self, z_t: Float[Tensor, "batch dim"], t: Int[Tensor, "batch"], cluster: Int[Tensor, "batch"], /
    ) -> Float[Tensor, "batch dim"]:
        """Estimate z_0."""
        ...


def ancestral_step(
    process: ShiftedDiffusion,
    z_0: Float[Tensor, "batch dim"],
    z_t: Float[Tensor, "batch dim"],
    t_s: tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]],
    cluster: Int[Tensor, "batch"],
    variance: Literal["large", "small"],
) -> Gaussian:
    """Return the distribution of z_s in one ancestral jump t -> s (eq. 8)."""
    if variance not in ("large", "small"):
        raise ValueError(f"variance must be large or small, got {variance!r}")
    law = process.posterior(z_0, z_t, *t_s, cluster)
    if variance == "small":
        return law
    return law._replace(variance=process.schedule.jump(*t_s).beta.to(z_t.dtype))


def ddim_step(
    process: ShiftedDiffusion,
    z_0: Float[Tensor, "batch dim"],
    z_t: Float[Tensor, "batch dim"],
    t_s: tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]],
    cluster: Int[Tensor, "batch"],
    eta: float,
) -> Gaussian:
    """Return the distribution of z_s in one DDIM jump t -> s (eq. 9)."""
    t, s = t_s
    mean, variance_s = process.marginal(z_0, s, cluster)
    added = eta**2 * process.schedule.jump(t, s).posterior_variance.to(z_t.dtype)
    kept = (variance_s - added).clamp(min=0).sqrt()[:, None]
    return Gaussian(mean + kept * process.scaled_noise(z_0, z_t, t, cluster), added)
