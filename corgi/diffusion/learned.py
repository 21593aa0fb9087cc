"""Learned (mu, Sigma): the reference's parameterisation and its two extra losses (docs/method.md eq. 19, 20)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable

LR_SCALE = 0.01
"""Values are stored divided by this, so that one optimiser step moves them by this share of its usual size."""
NUM_DRAWS = 16
"""Number of draws from the chosen Gaussian in the similarity loss."""


class LearnedShift(nn.Module):
    """Mean and log standard deviation of each cluster as weights (diagonal Sigma), started from a table.

    The forward process uses `table()`, a snapshot without gradient: a gradient of the x0 loss through z_t would
    shrink Sigma to make z_0 easy to guess. Only the two losses move mu and Sigma.
    """

    def __init__(self, table: ShiftTable, floor: float = 1e-3) -> None:
        """Start from a table's mean and scale; no scale falls below `floor` times the initial median scale."""
        super().__init__()
        self.stored_mean = nn.Parameter(table.mean.detach().clone() / LR_SCALE)
        self.stored_log_scale = nn.Parameter(table.scale.detach().log() / LR_SCALE)
        self.register_buffer("count", table.count.detach().clone())
        smallest = (floor * table.scale.detach().float().median()).log()
        self.register_buffer("smallest_log_scale", smallest)

    @property
    def mean(self) -> Float[Tensor, "k dim"]:
        """Return mu, with gradient."""
        return self.stored_mean * LR_SCALE

    @property
    def scale(self) -> Float[Tensor, "k dim"]:
        """Return the standard deviations, with gradient, floored."""
        floor = self.get_buffer("smallest_log_scale").to(self.stored_log_scale.dtype)
        return torch.maximum(self.stored_log_scale * LR_SCALE, floor).exp()

    def table(self) -> ShiftTable:
        """Return the current (mu, Sigma) without gradient."""
        return ShiftTable.snapshot(self.mean.detach(), self.scale.detach(), self.get_buffer("count"))


def similarity_loss(
    z_0: Float[Tensor, "batch dim"],
    draws: Float[Tensor, "batch draws dim"],
    weight: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """Minus the mean over the batch of w_t times the mean cosine of z_0 and draws of its Gaussian (eq. 19)."""
    cosine = F.cosine_similarity(z_0[:, None], draws, dim=-1).mean(dim=1)
    return -(weight.to(cosine.dtype) * cosine).mean()


def diversity_loss(mean: Float[Tensor, "batch dim"], weight: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Mean over the batch of w_t times the mean cosine of a sample's chosen mean and those of the others (eq. 20).

    Zero for a batch of one, which has no pair.
    """
    if len(mean) < 2:
        return mean.sum() * 0
    unit = F.normalize(mean, dim=-1)
    others = (unit @ unit.mT).sum(dim=1) - unit.square().sum(dim=1)
    return (weight.to(unit.dtype) * others / (len(mean) - 1)).mean()


def gaussian_draws(
    shift: LearnedShift, cluster: Int[Tensor, "batch"], eps: Float[Tensor, "batch draws dim"]
) -> Float[Tensor, "batch draws dim"]:
    """Draws mu + sigma eps of each sample's Gaussian, with gradient to both."""
    return shift.mean[cluster][:, None] + shift.scale[cluster][:, None] * eps
