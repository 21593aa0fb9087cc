"""Noise schedules: float64 tables indexed by the timestep t = 0..T, with abar_0 = 1."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCHEDULE_NAMES = (
    "linear",
    "cosine",
    "scaled_linear",
    "linear_zero_snr",
    "cosine_zero_snr",
    "scaled_linear_zero_snr",
    "flow",
)
_TABLES = (
    "betas",
    "timesteps",
    "log_alpha_bar",
    "alpha_bar",
    "one_minus_alpha_bar",
    "pull",
    "shift",
    "snr",
)


class Jump(NamedTuple):
    """Coefficients of one reverse jump t -> s (eq. 5), float64, one entry per sample."""

    c1: Float[Tensor, "batch"]
    """Weight of z_0 - mu in the posterior mean."""
    c2: Float[Tensor, "batch"]
    """Weight of z_t - mu in the posterior mean."""
    beta: Float[Tensor, "batch"]
    """1 - abar_t / abar_s, the "large" variance."""
    posterior_variance: Float[Tensor, "batch"]
    """btilde, the "small" variance."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """The betas of a chain; every other table is computed from them.

    Tables have T + 1 entries, so that index t means timestep t and entry 0 is the data. They are built in
    float64 from log(abar), which keeps 1 - abar_t and 1 - sqrt(abar_t) exact for small t.
    """

    betas: Float[Tensor, "length"]
    """beta_t in (0, 1], with betas[0] = 0."""
    timesteps: Int[Tensor, "length"]
    """Timestep of the original chain behind each entry; differs from the index after `respace`."""

    def __post_init__(self) -> None:
        """Validate the tables."""
        steps = self.betas[1:]
        if self.betas.dtype != torch.float64 or self.betas.ndim != 1 or len(steps) == 0:
            raise ValueError("betas must be a float64 vector of at least two entries")
        if self.betas[0] != 0 or not bool(((steps > 0) & (steps <= 1)).all()):
            raise ValueError("betas[0] must be 0 and every later beta in (0, 1]")
        if bool((steps[:-1] == 1).any()):
            raise ValueError("only the last beta may be 1")
        if self.timesteps.shape != self.betas.shape:
            raise ValueError("timesteps must have one entry per beta")

    @classmethod
    def from_betas(cls, betas: Float[Tensor, "steps"]) -> "Schedule":
        """Build a schedule from beta_1..beta_T."""
        padded = torch.cat([betas.new_zeros(1, dtype=torch.float64), betas.to(torch.float64)])
        return cls(padded, torch.arange(len(padded), device=betas.device))

    @classmethod
    def linear(cls, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2) -> "Schedule":
        """Build the linear schedule (Ho et al. 2020): beta_t from 1e-4 to 2e-2."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64))

    @classmethod
    def scaled_linear(
        cls, num_steps: int = 1000, beta_start: float = 8.5e-4, beta_end: float = 1.2e-2
    ) -> "Schedule":
        """Build the schedule of latent diffusion and Stable Diffusion (Rombach et al. 2022): sqrt(beta_t) is linear."""
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=torch.float64)
        return cls.from_betas(roots.square())

    @classmethod
    def cosine(cls, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> "Schedule":
        """Build the cosine schedule (Nichol and Dhariwal 2021): abar_t ~ cos^2, betas capped."""
        time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        alpha_bar = torch.cos((time + offset) / (1 + offset) * torch.pi / 2) ** 2
        return cls.from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))

    @classmethod
    def flow(cls, num_steps: int = 1000) -> "Schedule":
        """Build the straight path (1 - s) x_0 + s eps, s = t/T, divided by its standard deviation (Liu et al. 2023).

        abar_t = (1-s)^2 / ((1-s)^2 + s^2), which is 0 at T.
        """
        share = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        alpha_bar = (1 - share).square() / ((1 - share).square() + share.square())
        return cls.from_betas(1 - alpha_bar[1:] / alpha_bar[:-1])

    @classmethod
    def named(cls, name: str, num_steps: int = 1000) -> "Schedule":
        """Build the schedule of that name, one of `SCHEDULE_NAMES`; ValueError for another name."""
        if name not in SCHEDULE_NAMES:
            raise ValueError(f"schedule {name!r} is not one of {', '.join(SCHEDULE_NAMES)}")
        builders = {
            "linear": cls.linear,
            "cosine": cls.cosine,
            "scaled_linear": cls.scaled_linear,
            "flow": cls.flow,
        }
        base = builders[name.removesuffix("_zero_snr")](num_steps)
        return base.zero_terminal_snr() if name.endswith("zero_snr") else base

    def zero_terminal_snr(self) -> "Schedule":
        """Rescale sqrt(abar) linearly so that abar_T = 0 exactly and abar_1 stays (Lin et al. 2024).

        z_T is then pure N(mu, Sigma). Use it with x0- or v-prediction: eps-prediction divides by sqrt(abar_T).
        """
        if self.num_steps < 2:
            raise ValueError("a zero-terminal-SNR schedule needs at least 2 steps")
        signal = torch.exp(0.5 * self.log_alpha_bar[1:])
        signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
        ratio = torch.cat([signal[:1], signal[1:] / signal[:-1]]) ** 2
        return type(self).from_betas(1 - ratio)

    @property
    def num_steps(self) -> int:
        """Number of steps T."""
        return len(self.betas) - 1

    @cached_property
    def log_alpha_bar(self) -> Float[Tensor, "length"]:
        """log(abar_t) = sum_{i<=t} log(1 - beta_i)."""
        return torch.cumsum(torch.log1p(-self.betas), dim=0)

    @cached_property
    def alpha_bar(self) -> Float[Tensor, "length"]:
        """abar_t = prod_{i<=t} alpha_i, abar_0 = 1."""
        return torch.exp(self.log_alpha_bar)

    @cached_property
    def one_minus_alpha_bar(self) -> Float[Tensor, "length"]:
        """1 - abar_t, without cancellation."""
        return -torch.expm1(self.log_alpha_bar)

    @cached_property
    def pull(self) -> Float[Tensor, "length"]:
        """1 - sqrt(abar_t): the share of the way to mu that the mean has gone at t (eq. 2)."""
        return -torch.expm1(0.5 * self.log_alpha_bar)

    @cached_property
    def shift(self) -> Float[Tensor, "length"]:
        """s_t / mu = 1 - sqrt(1 - beta_t) (eq. 1)."""
        return -torch.expm1(0.5 * torch.log1p(-self.betas))

    @cached_property
    def snr(self) -> Float[Tensor, "length"]:
        """SNR_t = abar_t / (1 - abar_t); infinite at t = 0."""
        return self.alpha_bar / self.one_minus_alpha_bar

    def to(self, device: torch.device | str) -> "Schedule":
        """Return the schedule with its tables copied to a device: computed there they would differ in the last bits."""
        moved = copy.copy(self)
        moved.__dict__.update({name: getattr(self, name).to(device) for name in _TABLES})
        return moved

    def jump(self, t: Int[Tensor, "*batch"], s: Int[Tensor, "*batch"]) -> Jump:
        """Coefficients of q(z_s | z_t, z_0) for 0 <= s < t (eq. 5).

        c1 = sqrt(abar_s) beta / (1-abar_t), c2 = sqrt(alpha) (1-abar_s) / (1-abar_t),
        btilde = beta (1-abar_s) / (1-abar_t), with alpha = abar_t / abar_s and beta = 1 - alpha.
        """
        log_t, log_s = self.log_alpha_bar.to(t.device)[t], self.log_alpha_bar.to(s.device)[s]
        log_alpha = log_t - log_s
        beta, variance_t, variance_s = -torch.expm1(log_alpha), -torch.expm1(log_t), -torch.expm1(log_s)
        c1 = torch.exp(0.5 * log_s) * beta / variance_t
        c2 = torch.exp(0.5 * log_alpha) * variance_s / variance_t
        return Jump(c1, c2, beta, beta * variance_s / variance_t)

    def kept_timesteps(self, num_steps: int) -> list[int]:
        """Choose num_steps of 1..T, evenly spaced and ascending; T is always included, and 1 if num_steps > 1."""
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"num_steps must lie in 1..{self.num_steps}, got {num_steps}")
        if num_steps == 1:
            return [self.num_steps]
        span, gaps = self.num_steps - 1, num_steps - 1
        return [1 + (2 * i * span + gaps) // (2 * gaps) for i in range(num_steps)]

    def respace(self, num_steps: int) -> "Schedule":
        """Keep num_steps timesteps and recompute beta'_i = 1 - abar_i / abar_{i-1}, hence s' too (eq. 6)."""
        kept = torch.tensor([0, *self.kept_timesteps(num_steps)], device=self.betas.device)
        betas = self.jump(kept[1:], kept[:-1]).beta
        return type(self)(torch.cat([self.betas[:1], betas]), self.timesteps[kept])
