"""Native samplers: ancestral and DDIM, free of Sigma^-1, in at least float32 whatever autocast says.

One signature for all: (denoise, process, cluster, noise, steps). `noise(draw)` returns the standard normal
[batch, dim] of that draw: draw 0 is the start, draw i the i-th step. Its dtype is the dtype of the chain.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.shifted import Gaussian, ShiftedDiffusion

Noise = Callable[[int], Tensor]
"""Standard normal noise [batch, dim] by the number of the draw."""


@runtime_checkable
class Denoise(Protocol):
    """A network as the samplers see it: (z_t, original t in 1..T, cluster) -> estimate of z_0."""

    def __call__(
        self, z_t: Float[Tensor, "batch dim"], t: Int[Tensor, "batch"], cluster: Int[Tensor, "batch"], /
    ) -> Float[Tensor, "batch dim"]:
        """Estimate z_0."""
        ...


Step = Callable[[Tensor, Tensor, Tensor, Tensor], Gaussian]
"""(z_0 estimate, z_t, t, s) -> law of z_s."""


def philox_noise(seeds: Sequence[int], dim: int, device: torch.device | str = "cpu") -> Noise:
    """Make a float32 noise source whose row i depends on (seeds[i], draw) alone, never on its batch."""
    philox = np.random.Philox(key=[0, 0])
    bits, fresh = np.random.Generator(philox), philox.state

    def row(seed: int, draw: int) -> Float[np.ndarray, "dim"]:
        # Making a generator for each row asks the system for entropy, which a key does not need, and takes twice the time.
        fresh["state"]["key"][:] = (seed, draw)
        philox.state = fresh
        return bits.standard_normal(dim, dtype=np.float32)

    def noise(draw: int) -> Float[Tensor, "batch dim"]:
        return torch.from_numpy(np.stack([row(seed, draw) for seed in seeds])).to(device)

    return noise


def ancestral(
    denoise: Denoise,
    process: ShiftedDiffusion,
    cluster: Int[Tensor, "batch"],
    noise: Noise,
    steps: int | Sequence[int] = 8,
    variance: Literal["large", "small"] = "large",
) -> Float[Tensor, "batch dim"]:
    """Sample z_0 by z_s = mu + c1 (zhat-mu) + c2 (z_t-mu) + sqrt(v) L xi (eq. 8).

    v = btilde ("small") or beta' ("large"). `steps` is a number of evenly spaced timesteps, or the ascending
    timesteps themselves, ending at T. The last step adds no noise.
    """

    def step(z_0: Tensor, z_t: Tensor, t: Tensor, s: Tensor) -> Gaussian:
        return ancestral_step(process, z_0, z_t, (t, s), cluster, variance)

    return _run(denoise, process, cluster, noise, _pairs(process, steps), step, is_noisy=True)


def ddim(
    denoise: Denoise,
    process: ShiftedDiffusion,
    cluster: Int[Tensor, "batch"],
    noise: Noise,
    steps: int | Sequence[int] = 8,
    eta: float = 0.0,
) -> Float[Tensor, "batch dim"]:
    """Sample z_0 by z_s = mu + sqrt(abar_s)(zhat-mu) + sqrt(1-abar_s-sg^2) r + sg L xi (eq. 9).

    r = L eps-hat (eq. 7) and sg^2 = eta^2 btilde; eta = 0 calls `noise` for the start only, eta = 1 is
    `ancestral` with the small variance.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0..1, got {eta}")

    def step(z_0: Tensor, z_t: Tensor, t: Tensor, s: Tensor) -> Gaussian:
        return ddim_step(process, z_0, z_t, (t, s), cluster, eta)

    return _run(denoise, process, cluster, noise, _pairs(process, steps), step, is_noisy=eta > 0)


def ancestral_step(
    process: ShiftedDiffusion,
    z_0: Float[Tensor, "batch dim"],
    z_t: Float[Tensor, "batch dim"],
    t_s: tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]],
    cluster: Int[Tensor, "batch"],
    variance: Literal["large", "small"],
) -> Gaussian:
    """Law of z_s in one ancestral jump t -> s (eq. 8)."""
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
    """Law of z_s in one DDIM jump t -> s (eq. 9)."""
    t, s = t_s
    mean, variance_s = process.marginal(z_0, s, cluster)
    added = eta**2 * process.schedule.jump(t, s).posterior_variance.to(z_t.dtype)
    kept = (variance_s - added).clamp(min=0).sqrt()[:, None]
    return Gaussian(mean + kept * process.scaled_noise(z_0, z_t, t, cluster), added)


def _pairs(process: ShiftedDiffusion, steps: int | Sequence[int]) -> list[tuple[int, int]]:
    """Descending jumps (t, s), from T to 0."""
    schedule = process.schedule
    kept = schedule.kept_timesteps(steps) if isinstance(steps, int) else list(steps)
    ascending = all(earlier < later for earlier, later in zip([0, *kept], kept, strict=False))
    if not kept or not ascending or kept[-1] != schedule.num_steps:
        raise ValueError(
            f"timesteps must ascend within 1..{schedule.num_steps} and end at {schedule.num_steps}"
        )
    return list(zip(kept[::-1], [0, *kept[:-1]][::-1], strict=True))


def _run(
    denoise: Denoise,
    process: ShiftedDiffusion,
    cluster: Tensor,
    noise: Noise,
    pairs: list[tuple[int, int]],
    step: Step,
    is_noisy: bool,
) -> Tensor:
    """Walk the chain; the network alone runs under the caller's autocast.

    `is_noisy` says whether every step but the last adds noise: to look at the variances would make the host wait in each.
    """
    first = noise(0)
    dtype = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        z = process.start(first.to(dtype), cluster)
    for draw, (t, s) in enumerate(pairs, start=1):
        index_t, index_s = torch.full_like(cluster, t), torch.full_like(cluster, s)
        z_0 = denoise(z, process.schedule.timesteps.to(cluster.device)[index_t], cluster).to(dtype)
        with torch.autocast(first.device.type, enabled=False):
            law = step(z_0, z, index_t, index_s)
            z = process.draw(law, noise(draw).to(dtype), cluster) if is_noisy and s > 0 else law.mean
    return z
