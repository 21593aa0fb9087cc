"""Samplers: ancestral and DDIM, native and without Sigma^-1, in at least float32 also under autocast; and diffusers' DPM-Solver++.

`SAMPLERS` lists them by their names in the settings. All have one signature: (denoise, process, cluster, noise, steps). `noise(draw)` returns the standard normal
[batch, dim] of that draw: draw 0 is for the start, draw i for the i-th step. Its dtype is the dtype of the chain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.philox import CHAIN, Stream, normals, seeds_of
from corgi.diffusion.shifted import Gaussian, ShiftedDiffusion
from corgi.diffusion.steps import Denoise, Noise, ancestral_step, ddim_step
from corgi.names import SamplerName

Step = Callable[[Tensor, Tensor, Tensor, Tensor], Gaussian]
"""(z_0 estimate, z_t, t, s) -> distribution of z_s."""


def philox_noise(seeds: Sequence[int], dim: int, device: torch.device | str = "cpu") -> Noise:
    """Make a float32 noise source whose row i depends only on (seeds[i], draw), not on its batch."""
    seed = seeds_of(seeds, device)
    start = torch.zeros_like(seed)

    def noise(draw: int) -> Float[Tensor, "batch dim"]:
        return normals(Stream(seed, start, CHAIN, draw), dim)

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


def dpm_solver(
    denoise: Denoise,
    process: ShiftedDiffusion,
    cluster: Int[Tensor, "batch"],
    noise: Noise,
    steps: int | Sequence[int] = 8,
) -> Float[Tensor, "batch dim"]:
    """Sample z_0 by diffusers' DPM-Solver++ 2M on whitened data (eq. 10); its last step is of first order, which few steps need.

    Raises:
        ValueError: the timesteps themselves are given; the solver chooses its own.

    """
    if not isinstance(steps, int):
        raise ValueError("dpm++ chooses its own timesteps; give their number")
    # imported here: it takes 3 s of processor time, which every training worker would spend on a sampler it may never use
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    from corgi.diffusion.scheduler import WhitenedScheduler, trained_betas

    solver = DPMSolverMultistepScheduler(
        num_train_timesteps=process.schedule.num_steps,
        trained_betas=trained_betas(process.schedule),
        prediction_type="sample",
        rescale_betas_zero_snr=float(process.schedule.alpha_bar[-1]) == 0,  # the first log SNR must be finite
    )
    start = noise(0)
    return WhitenedScheduler(solver, process.table).sample(denoise, cluster, lambda _: start, steps)


@runtime_checkable
class Sample(Protocol):
    """The signature of every sampler."""

    def __call__(
        self,
        denoise: Denoise,
        process: ShiftedDiffusion,
        cluster: Int[Tensor, "batch"],
        noise: Noise,
        steps: int | Sequence[int],
        /,
    ) -> Float[Tensor, "batch dim"]:
        """Sample z_0 in that many steps, or over these timesteps."""
        ...


@dataclass(frozen=True)
class Sampler:
    """A sampler, and the step of `ShiftedDiffusionScheduler` that replaces it in an exported prior."""

    sample: Sample
    exported_step: Literal["ancestral", "ddim"] = "ancestral"
    exported_variance: Literal["large", "small"] = "large"


SAMPLERS: Mapping[SamplerName, Sampler] = {
    "ancestral": Sampler(ancestral),
    "ancestral_small": Sampler(partial(ancestral, variance="small"), exported_variance="small"),
    "ddim": Sampler(ddim, "ddim"),
    "dpm++": Sampler(dpm_solver, "ddim"),  # needs a number of steps of the same order
}
"""The samplers that a setting can name."""


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
    """Run the chain; only the network runs under the caller's autocast.

    `is_noisy`: whether every step but the last adds noise. Reading the variances instead would make the host wait in each step.
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
