"""Loss weights, the weighted x0 loss, and conversions between the x0, eps, v and flow parameterisations."""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable, column

WeightName = Literal["uniform", "one_minus_abar", "snr", "min_snr", "p2"]
Parameterisation = Literal["x0", "eps", "v", "flow"]
Metric = Literal["euclidean", "whitened"]
"""Norm of z_0 - zhat: plain, or |L^-1 (z_0 - zhat)| (Sigma^-1)."""

MIN_SNR_CAP = 5.0
"""Cap of min-SNR weighting (Hang et al. 2023)."""


def loss_weight(schedule: Schedule, t: Int[Tensor, "*batch"], name: WeightName) -> Float[Tensor, "*batch"]:
    """Weight of the x0 loss at t >= 1, float64 (eq. 13).

    uniform: 1. one_minus_abar: 1-abar_t, the reference's (1 + SNR)^-1. snr: SNR_t, the plain eps loss.
    min_snr: min(SNR_t, 5). p2: abar_t = SNR/(1+SNR), P2 weighting of the eps loss, expressed for x0.
    """
    if name not in get_args(WeightName):
        raise ValueError(f"loss weight {name!r} is not one of {', '.join(get_args(WeightName))}")
    if name == "uniform":
        return torch.ones_like(t, dtype=torch.float64)
    tables = {
        "one_minus_abar": schedule.one_minus_alpha_bar,
        "snr": schedule.snr,
        "min_snr": schedule.snr,
        "p2": schedule.alpha_bar,
    }
    weight = tables[name].to(t.device)[t]
    return weight.clamp(max=MIN_SNR_CAP) if name == "min_snr" else weight


def squared_error(
    z_0: Float[Tensor, "batch dim"],
    estimate: Float[Tensor, "batch dim"],
    table: ShiftTable | None = None,
    cluster: Int[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch"]:
    """Mean over dimensions of (z_0 - zhat)^2, in float32 at least.

    With a table and cluster it is the Sigma^-1 metric, |L^-1 (z_0 - zhat)|^2 / d.
    """
    delta = (estimate - z_0).to(torch.promote_types(z_0.dtype, torch.float32))
    if table is not None and cluster is not None:
        delta = table.solve_L(delta, cluster)
    return delta.square().mean(dim=-1)


class Noised(NamedTuple):
    """Training samples, clean and noisy, with their timesteps and clusters."""

    z_0: Float[Tensor, "batch dim"]
    z_t: Float[Tensor, "batch dim"]
    t: Int[Tensor, "batch"]
    cluster: Int[Tensor, "batch"]


def prediction_error(
    process: ShiftedDiffusion,
    prediction: Float[Tensor, "batch dim"],
    sample: Noised,
    kind: Parameterisation,
    metric: Metric = "euclidean",
) -> Float[Tensor, "batch"]:
    """Mean over dimensions of the squared distance between z_0 and the estimate of it that a prediction implies.

    Never divides by sqrt(abar): with u = L (prediction - target), |z_0 - zhat|^2 is `error_factor` times |u|^2. Where
    SNR_t = 0 an eps error is infinite, unless the prediction is exact.
    """
    z_0, z_t, t, cluster = sample
    if kind == "x0":
        table = process.table if metric == "whitened" else None
        return squared_error(z_0, prediction, table, cluster)
    delta = prediction.to(z_t.dtype) - from_x0(process, z_0, z_t, t, cluster, kind)
    if metric == "euclidean":
        delta = process.table.apply_L(delta, cluster)
    return delta.square().mean(dim=-1) * error_factor(process.schedule, t, kind).to(delta.dtype)


def error_factor(
    schedule: Schedule, t: Int[Tensor, "batch"], kind: Parameterisation
) -> Float[Tensor, "batch"]:
    """Factor from the squared error of a prediction to that of its z_0, float64 (eq. 18).

    1 for x0, 1/SNR_t for eps, 1-abar_t for v, (1-abar_t) / (sqrt(abar_t) + sqrt(1-abar_t))^2 for flow.
    """
    if kind == "x0":
        return torch.ones_like(t, dtype=torch.float64)
    left, signal = schedule.one_minus_alpha_bar.to(t.device)[t], schedule.alpha_bar.to(t.device)[t]
    if kind == "eps":
        return left / signal
    return left if kind == "v" else left / (signal.sqrt() + left.sqrt()).square()


def prediction_weight(
    schedule: Schedule, t: Int[Tensor, "batch"], kind: Parameterisation, name: WeightName | None
) -> Float[Tensor, "batch"]:
    """Weight of the squared error of a prediction, float64: that of its x0 loss times `error_factor`; None: 1 (eq. 25).

    For min_snr it is min(SNR_t, 5) of x0, min(SNR_t, 5)/SNR_t of eps, min(SNR_t, 5)/(SNR_t + 1) of v (Hang et al. 2023).
    """
    if name is None:
        return torch.ones_like(t, dtype=torch.float64)
    return loss_weight(schedule, t, name) * error_factor(schedule, t, kind)


def weighted_loss(error: Float[Tensor, "batch"], weight: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Mean over the batch of w_t * error (eq. 14)."""
    return (weight.to(error.dtype) * error).mean()


def to_x0(
    process: ShiftedDiffusion,
    prediction: Float[Tensor, "batch dim"],
    z_t: Float[Tensor, "batch dim"],
    t: Int[Tensor, "batch"],
    cluster: Int[Tensor, "batch"],
    kind: Parameterisation,
) -> Float[Tensor, "batch dim"]:
    """Turn a prediction into an estimate of z_0 (eq. 15).

    eps: z_0 = mu + (z_t - mu - sqrt(1-abar) L eps) / sqrt(abar), not defined where abar_t = 0.
    v:   z_0 = mu + sqrt(abar)(z_t - mu) - sqrt(1-abar) L v.
    flow: z_0 = mu + (z_t - mu - sqrt(1-abar) L u) / (sqrt(abar) + sqrt(1-abar)).
    """
    if kind == "x0":
        return prediction
    mu = process.table.centre(cluster, z_t)
    signal = column(process.schedule.alpha_bar, t, z_t).sqrt()
    spread = column(process.schedule.one_minus_alpha_bar, t, z_t).sqrt()
    scaled = spread * process.table.apply_L(prediction.to(z_t.dtype), cluster)
    if kind == "eps":
        return mu + (z_t - mu - scaled) / signal
    if kind == "v":
        return mu + signal * (z_t - mu) - scaled
    if kind == "flow":
        return mu + (z_t - mu - scaled) / (signal + spread)
    raise ValueError(f"prediction {kind!r} is not one of {', '.join(get_args(Parameterisation))}")


def from_x0(
    process: ShiftedDiffusion,
    z_0: Float[Tensor, "batch dim"],
    z_t: Float[Tensor, "batch dim"],
    t: Int[Tensor, "batch"],
    cluster: Int[Tensor, "batch"],
    kind: Parameterisation,
) -> Float[Tensor, "batch dim"]:
    """Turn z_0 into eps = L^-1 r (eq. 7), v = sqrt(abar) eps - sqrt(1-abar) x_0 (eq. 16) or the flow u = eps - x_0 (eq. 26), t >= 1.

    x_0 = L^-1 (z_0 - mu). u is the velocity of the straight path (1 - s) x_0 + s eps (Liu et al. 2023), whatever the schedule.
    """
    if kind == "x0":
        return z_0
    eps = process.table.solve_L(process.scaled_noise(z_0, z_t, t, cluster), cluster)
    if kind == "eps":
        return eps
    if kind == "v":
        signal = column(process.schedule.alpha_bar, t, z_t).sqrt()
        spread = column(process.schedule.one_minus_alpha_bar, t, z_t).sqrt()
        return signal * eps - spread * process.table.whiten(z_0, cluster)
    if kind == "flow":
        return eps - process.table.whiten(z_0, cluster)
    raise ValueError(f"prediction {kind!r} is not one of {', '.join(get_args(Parameterisation))}")
