"""Shifted diffusion and the diffusers scheduler interface, both ways (docs/method.md eq. 10)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from corgi.diffusion.loss import from_x0
from corgi.diffusion.samplers import ancestral, ddim
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.scheduler import (
    PREDICTIONS,
    ShiftedDiffusionScheduler,
    ShiftedSchedulerOutput,
    WhitenedScheduler,
    trained_betas,
)
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from tests.support.shapes import REFUSED

CLUSTER = torch.tensor([0, 1, 2, 1, 0])
Draws = Callable[[int], Callable[[int], Tensor]]


def nonlinear(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
    """An arbitrary denoiser of z_0."""
    return torch.sin(z.flip(-1) + t[:, None] / 300) + 0.3 * z * cluster[:, None]


def options(**more: Any) -> dict[str, Any]:
    """What every wrapped scheduler needs."""
    return {"trained_betas": trained_betas(Schedule.linear()), "prediction_type": "sample", **more}


SCHEDULERS = {
    "dpm++": lambda: DPMSolverMultistepScheduler(**options(algorithm_type="dpmsolver++")),
    "unipc": lambda: UniPCMultistepScheduler(**options()),
    "ddim": lambda: DDIMScheduler(**options(clip_sample=False)),
    "ddpm": lambda: DDPMScheduler(**options(clip_sample=False)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_law_06_a_wrapped_scheduler_is_diffusers_on_whitened_data(
    name: str, table: ShiftTable, draws: Draws
) -> None:
    """sample() and a loop of step() equal the bare diffusers loop on x = L^-1 (z - mu), 8 steps."""
    stochastic, noise = name in ("ddpm", "dpm++"), draws(5)
    generators = [torch.Generator().manual_seed(3) if stochastic else None for _ in range(3)]
    extra = {"generator": generators[0]} if stochastic else {}
    bare = SCHEDULERS[name]()
    bare.set_timesteps(8)
    x = noise(0)
    for tau in bare.timesteps:
        z_0 = nonlinear(table.unwhiten(x, CLUSTER), torch.full_like(CLUSTER, int(tau) + 1), CLUSTER)
        x = bare.step(table.whiten(z_0, CLUSTER), tau, x, return_dict=False, **extra)[0]
    expected = table.unwhiten(x, CLUSTER)
    wrapped = WhitenedScheduler(SCHEDULERS[name](), table)
    sample = wrapped.sample(nonlinear, CLUSTER, noise, 8, generators[1])
    torch.testing.assert_close(sample, expected, rtol=1e-10, atol=1e-10)

    wrapped = WhitenedScheduler(SCHEDULERS[name](), table)
    wrapped.set_timesteps(8)
    z = wrapped.start(noise(0), CLUSTER)
    for tau in wrapped.timesteps:
        z_0 = nonlinear(z, torch.full_like(CLUSTER, int(tau) + 1), CLUSTER)
        z = wrapped.step(z_0, tau, z, CLUSTER, generators[2])
    torch.testing.assert_close(z, expected, rtol=1e-8, atol=1e-8)


def test_first_order_dpm_solver_through_the_wrapper_is_native_ddim(table: ShiftTable, draws: Draws) -> None:
    """DPM-Solver++(1) is DDIM (eq. 9, eta = 0) at the same timesteps; diffusers' float32 tables bound the gap."""
    solver = DPMSolverMultistepScheduler(**options(solver_order=1))
    wrapped = WhitenedScheduler(solver, table)
    sample = wrapped.sample(nonlinear, CLUSTER, draws(5), 8)
    kept = [int(tau) + 1 for tau in wrapped.timesteps.flip(0)]
    assert kept[-1] == 1000
    native = ddim(nonlinear, ShiftedDiffusion(table, Schedule.linear()), CLUSTER, draws(5), kept)
    torch.testing.assert_close(sample, native, rtol=1e-3, atol=1e-3)


def test_wrapped_add_noise_is_q_sample(table: ShiftTable, draws: Draws) -> None:
    """eq. 3 through the wrapper, to diffusers' float32 tables."""
    wrapped, tau = WhitenedScheduler(SCHEDULERS["ddim"](), table), torch.tensor([0, 9, 499, 998, 999])
    z_0, eps = draws(5)(0), draws(5)(1)
    native = ShiftedDiffusion(table, Schedule.linear()).q_sample(z_0, tau + 1, eps, CLUSTER)
    torch.testing.assert_close(wrapped.add_noise(z_0, eps, tau, CLUSTER), native, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"prediction_type": "epsilon", "clip_sample": False},
        {"clip_sample": True},
        {"thresholding": True, "clip_sample": False},
    ],
)
def test_schedulers_that_break_the_equivalence_are_refused(config: dict[str, Any], table: ShiftTable) -> None:
    """eps-prediction, clipping and thresholding raise ValueError."""
    with pytest.raises(ValueError, match="wrapped scheduler"):
        WhitenedScheduler(DDIMScheduler(**{**options(), **config}), table)


def run_native(scheduler: ShiftedDiffusionScheduler, first: Tensor, steps: int, seed: int) -> Tensor:
    """The loop of a diffusers pipeline."""
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    z = scheduler.start(first * scheduler.init_noise_sigma, CLUSTER)
    for tau in scheduler.timesteps:
        z_0 = nonlinear(scheduler.scale_model_input(z, tau), torch.full_like(CLUSTER, int(tau) + 1), CLUSTER)
        z = scheduler.step(z_0, tau, z, CLUSTER, generator, return_dict=False)[0]
    return z


@pytest.mark.parametrize("steps", [1, 2, 8, 100])
@pytest.mark.parametrize(
    "config", [{}, {"variance": "small"}, {"sampler": "ddim"}, {"sampler": "ddim", "eta": 0.5}]
)
def test_shifted_scheduler_is_the_native_sampler(
    config: dict[str, Any], steps: int, table: ShiftTable, draws: Draws
) -> None:
    """A diffusers loop gives what eq. 8 or 9 gives, with the generator's noise, bit for bit."""
    scheduler = ShiftedDiffusionScheduler(**config).set_table(table)
    first, generator = draws(5)(0), torch.Generator().manual_seed(11)

    def noise(draw: int) -> Tensor:
        return first if draw == 0 else torch.randn(5, 4, generator=generator, dtype=torch.float64)

    process = ShiftedDiffusion(table, Schedule.linear())
    if config.get("sampler") == "ddim":
        native = ddim(nonlinear, process, CLUSTER, noise, steps, eta=float(str(config.get("eta", 0.0))))
    else:
        variance = "small" if config else "large"
        native = ancestral(nonlinear, process, CLUSTER, noise, steps, variance)
    assert torch.equal(run_native(scheduler, first, steps, 11), native)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_shifted_scheduler_takes_every_parameterisation(
    prediction: str, table: ShiftTable, draws: Draws
) -> None:
    """The step from an eps or v prediction equals the step from the z_0 it stands for."""
    z_t, z_0, tau = draws(5)(0), draws(5)(1), 999
    sample = ShiftedDiffusionScheduler(sampler="ddim").set_table(table)
    other = ShiftedDiffusionScheduler(sampler="ddim", prediction_type=prediction).set_table(table)
    t = torch.full_like(CLUSTER, tau + 1)
    converted = from_x0(sample.process, z_0, z_t, t, CLUSTER, PREDICTIONS[prediction])
    expected, got = sample.step(z_0, tau, z_t, CLUSTER), other.step(converted, tau, z_t, CLUSTER)
    assert isinstance(expected, ShiftedSchedulerOutput)
    assert isinstance(got, ShiftedSchedulerOutput)
    torch.testing.assert_close(got.prev_sample, expected.prev_sample, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.pred_original_sample, z_0, rtol=1e-9, atol=1e-9)


def test_shifted_scheduler_configuration_round_trips(tmp_path: Path, draws: Draws) -> None:
    """save_pretrained and from_pretrained keep the configuration; the same table gives the same chain."""
    table = ShiftTable.ddpm(4, torch.float64)
    scheduler = ShiftedDiffusionScheduler(
        num_train_timesteps=500, beta_schedule="cosine", sampler="ddim", eta=0.25
    ).set_table(table)
    scheduler.save_pretrained(tmp_path)
    loaded = ShiftedDiffusionScheduler.from_pretrained(tmp_path)
    assert isinstance(loaded, ShiftedDiffusionScheduler)
    kept = [{k: v for k, v in one.config.items() if k[0] != "_"} for one in (loaded, scheduler)]
    assert kept[0] == kept[1]
    assert len(loaded) == 500
    assert torch.equal(loaded.alphas_cumprod, scheduler.alphas_cumprod)
    with pytest.raises(ValueError, match="set_table"):
        loaded.add_noise(draws(5)(0), draws(5)(1), CLUSTER)
    for one in (scheduler, loaded.set_table(table)):
        one.set_timesteps(3)
        assert one.timesteps.tolist() == [499, 250, 0]


def test_shifted_scheduler_add_noise_is_q_sample(table: ShiftTable, draws: Draws) -> None:
    """eq. 3 at tau = t - 1."""
    scheduler, tau = ShiftedDiffusionScheduler().set_table(table), torch.tensor([0, 9, 499, 998, 999])
    z_0, eps = draws(5)(0), draws(5)(1)
    native = ShiftedDiffusion(table, Schedule.linear()).q_sample(z_0, tau + 1, eps, CLUSTER)
    assert torch.equal(scheduler.add_noise(z_0, eps, tau, CLUSTER), native)


def test_shifted_scheduler_refuses_what_it_cannot_do(table: ShiftTable, draws: Draws) -> None:
    """Several clusters without an index, a timestep outside the chain, unknown options."""
    scheduler = ShiftedDiffusionScheduler().set_table(table)
    scheduler.set_timesteps(8)
    with pytest.raises(ValueError, match="one cluster index per sample"):
        scheduler.start(draws(5)(0))
    with pytest.raises(ValueError, match="not one of the timesteps"):
        scheduler.step(draws(5)(0), 5, draws(5)(0), CLUSTER)
    refused: dict[str, Any] = {"prediction_type": "score", "sampler": "euler", "variance": "huge", "eta": 2.0}
    for name, value in refused.items():
        with pytest.raises(REFUSED, match=name):
            ShiftedDiffusionScheduler(**{name: value})
