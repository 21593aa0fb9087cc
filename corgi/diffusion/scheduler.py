"""Shifted diffusion behind the diffusers scheduler interface, in both directions.

`WhitenedScheduler` lets any diffusers scheduler sample a shifted prior; `ShiftedDiffusionScheduler` lets any
diffusers loop drive the native samplers. diffusers counts timesteps 0..T-1, Corgi 1..T: tau = t - 1.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# torch has functions without types

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.loss import Parameterisation, to_x0
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import Gaussian, ShiftedDiffusion, ShiftTable
from corgi.diffusion.steps import Denoise, Noise, ancestral_step, ddim_step

PREDICTIONS: dict[str, Parameterisation] = {"sample": "x0", "epsilon": "eps", "v_prediction": "v"}
"""diffusers' name of a parameterisation -> Corgi's."""


def trained_betas(schedule: Schedule) -> list[float]:
    """beta_1..beta_T as the `trained_betas` argument of a diffusers scheduler."""
    return schedule.betas[1:].tolist()


class WhitenedScheduler:
    """Run a diffusers scheduler on x = L^-1 (z - mu), where shifted diffusion is ordinary diffusion (eq. 10).

    The scheduler must predict the sample (x0) and neither clip nor threshold it; ValueError otherwise.
    """

    def __init__(self, scheduler: SchedulerMixin, table: ShiftTable) -> None:
        """Wrap a scheduler built with `trained_betas(schedule)` and `prediction_type="sample"`."""
        self.scheduler: Any = scheduler
        self.table = table
        config = self.scheduler.config
        if config.get("prediction_type") != "sample":
            raise ValueError('the wrapped scheduler must have prediction_type="sample"')
        if config.get("clip_sample", False) or config.get("thresholding", False):
            raise ValueError("the wrapped scheduler must have clip_sample=False and thresholding=False")

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of the next chain."""
        self.scheduler.set_timesteps(num_inference_steps, device=device)

    @property
    def timesteps(self) -> Tensor:
        """Diffusers timesteps tau = t - 1, descending."""
        return self.scheduler.timesteps

    def start(
        self, noise: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """Turn standard noise into the first z."""
        return self.table.unwhiten(noise * self.scheduler.init_noise_sigma, cluster)

    def add_noise(
        self,
        z_0: Float[Tensor, "batch dim"],
        noise: Float[Tensor, "batch dim"],
        timesteps: Int[Tensor, "batch"],
        cluster: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch dim"]:
        """Add noise to z_0 as at the diffusers timesteps (eq. 3)."""
        whitened = self.scheduler.add_noise(self.table.whiten(z_0, cluster), noise, timesteps)
        return self.table.unwhiten(whitened, cluster)

    def step(
        self,
        z_0: Float[Tensor, "batch dim"],
        timestep: Tensor | int,
        z_t: Float[Tensor, "batch dim"],
        cluster: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Take one step of the wrapped scheduler from z_t with the network's estimate of z_0."""
        x_0, x_t = self.table.whiten(z_0, cluster), self.table.whiten(z_t, cluster)
        return self.table.unwhiten(self._step(x_0, timestep, x_t, generator), cluster)

    def sample(
        self,
        denoise: Denoise,
        cluster: Int[Tensor, "batch"],
        noise: Noise,
        steps: int = 8,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Sample z_0 with the wrapped scheduler; the chain itself stays whitened, so nothing is lost near mu.

        `generator` feeds stochastic schedulers; `noise(0)` is the start.
        """
        first = noise(0)
        self.set_timesteps(steps, device=first.device)
        x = first.to(torch.promote_types(first.dtype, torch.float32)) * self.scheduler.init_noise_sigma
        for tau in self.timesteps:
            z_t = self.table.unwhiten(self.scheduler.scale_model_input(x, tau), cluster)
            z_0 = denoise(z_t, torch.full_like(cluster, int(tau) + 1), cluster).to(x.dtype)
            x = self._step(self.table.whiten(z_0, cluster), tau, x, generator)
        return self.table.unwhiten(x, cluster)

    def _step(
        self, x_0: Tensor, timestep: Tensor | int, x_t: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Step the wrapped scheduler; only stochastic ones take a generator."""
        options = {} if generator is None else {"generator": generator}
        return self.scheduler.step(x_0, timestep, x_t, return_dict=False, **options)[0]


@dataclass
class ShiftedSchedulerOutput(SchedulerOutput):
    """z_s and the estimate of z_0 it came from."""

    pred_original_sample: torch.Tensor | None = None


class ShiftedDiffusionScheduler(SchedulerMixin, ConfigMixin):
    """The native samplers as a diffusers scheduler.

    `save_pretrained` and `from_pretrained` save and load only the configuration. The shift table consists of tensors and is set by
    `set_table`; before that every use of it raises ValueError. `cluster` may be left out if the table has only one cluster.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "linear",
        prediction_type: str = "sample",
        sampler: Literal["ancestral", "ddim"] = "ancestral",
        variance: Literal["large", "small"] = "large",
        eta: float = 0.0,
    ) -> None:
        """Build the schedule; `variance` belongs to the ancestral sampler, `eta` to DDIM."""
        if prediction_type not in PREDICTIONS:
            raise ValueError(f"prediction_type {prediction_type!r} is not one of {', '.join(PREDICTIONS)}")
        if sampler not in ("ancestral", "ddim") or variance not in ("large", "small"):
            raise ValueError("sampler must be ancestral or ddim, variance large or small")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in 0..1, got {eta}")
        self.schedule = Schedule.named(beta_schedule, num_train_timesteps)
        self.betas = self.schedule.betas[1:]
        self.alphas_cumprod = self.schedule.alpha_bar[1:]
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self._process: ShiftedDiffusion | None = None
        self._previous = self._previous_by_timestep()

    def set_table(self, table: ShiftTable) -> "ShiftedDiffusionScheduler":
        """Set (mu, Sigma) and return the scheduler."""
        self._process = ShiftedDiffusion(table, self.schedule)
        return self

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Keep that many evenly spaced timesteps, T - 1 always among them."""
        kept = self.schedule.kept_timesteps(num_inference_steps)
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.tensor(kept[::-1], device=device) - 1
        self._previous = self._previous_by_timestep()

    def scale_model_input(
        self, sample: Float[Tensor, "batch dim"], timestep: Tensor | int | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Return the sample unchanged: the chain is variance preserving."""
        return sample

    def start(
        self, noise: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Turn standard noise into z_T = mu + L eps."""
        return self.process.start(noise, self._cluster(noise, cluster))

    def add_noise(
        self,
        original_samples: Float[Tensor, "batch dim"],
        noise: Float[Tensor, "batch dim"],
        timesteps: Int[Tensor, "batch"],
        cluster: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Add noise to the samples as at the diffusers timesteps (eq. 3)."""
        chosen = self._cluster(original_samples, cluster)
        return self.process.q_sample(original_samples, timesteps + 1, noise, chosen)

    def step(
        self,
        model_output: Float[Tensor, "batch dim"],
        timestep: Tensor | int,
        sample: Float[Tensor, "batch dim"],
        cluster: Int[Tensor, "batch"] | None = None,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> ShiftedSchedulerOutput | tuple[Tensor, Tensor]:
        """Take one reverse step; `timestep` must be one of `timesteps`."""
        tau = int(timestep)
        if tau not in self._previous:
            raise ValueError(f"timestep {tau} is not one of the timesteps set by set_timesteps")
        index = self._cluster(sample, cluster)
        t, s = torch.full_like(index, tau + 1), torch.full_like(index, self._previous[tau] + 1)
        with torch.autocast(sample.device.type, enabled=False):
            z_t = sample.to(torch.promote_types(sample.dtype, torch.float32))
            kind = PREDICTIONS[self.config["prediction_type"]]
            z_0 = to_x0(self.process, model_output.to(z_t.dtype), z_t, t, index, kind)
            law = self._law(z_0, z_t, (t, s), index)
            z_s = law.mean if self._previous[tau] < 0 else self._draw(law, index, generator)
        if not return_dict:
            return z_s, z_0
        return ShiftedSchedulerOutput(prev_sample=z_s, pred_original_sample=z_0)

    @property
    def process(self) -> ShiftedDiffusion:
        """The process; ValueError before `set_table`."""
        if self._process is None:
            raise ValueError("the scheduler has no shift table: call set_table first")
        return self._process

    def __len__(self) -> int:
        """Return the number of training timesteps."""
        return self.schedule.num_steps

    def _previous_by_timestep(self) -> dict[int, int]:
        """Tau -> next tau of the chain, -1 at its end."""
        kept = self.timesteps.tolist()
        return dict(zip(kept, [*kept[1:], -1], strict=True))

    def _cluster(self, sample: Tensor, cluster: Tensor | None) -> Tensor:
        if cluster is not None:
            return cluster
        if self.process.table.num_clusters > 1:
            raise ValueError("the shift table has several clusters: pass one cluster index per sample")
        return torch.zeros(len(sample), dtype=torch.int64, device=sample.device)

    def _law(self, z_0: Tensor, z_t: Tensor, t_s: tuple[Tensor, Tensor], cluster: Tensor) -> Gaussian:
        if self.config["sampler"] == "ddim":
            return ddim_step(self.process, z_0, z_t, t_s, cluster, self.config["eta"])
        return ancestral_step(self.process, z_0, z_t, t_s, cluster, self.config["variance"])

    def _draw(self, law: Gaussian, cluster: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw on the generator's device, so that one seed gives one picture on every device."""
        if not bool((law.variance > 0).any()):
            return law.mean
        source = law.mean.device if generator is None else generator.device
        eps = torch.randn(law.mean.shape, generator=generator, device=source, dtype=law.mean.dtype)
        return self.process.draw(law, eps.to(law.mean.device), cluster)
