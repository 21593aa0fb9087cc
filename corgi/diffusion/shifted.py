"""The shift table (mu, Sigma) of k clusters, and the shifted forward process with its posterior.

One implementation serves every baseline: only the table differs.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# torch has functions without types

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from corgi.diffusion.schedule import Schedule

COSINE_TIE = 1e-12
"""Cosines closer than this count as equal, so that rounding in a matrix product does not decide between them."""


class ShiftTable(nn.Module):
    """(mu, Sigma) of k clusters, with Sigma = L L^T in one of three forms.

    diagonal: L = diag(scale). low rank: Sigma = diag(scale^2) + F F^T with factor F [k, d, r].
    full: L = cholesky [k, d, d], lower triangular. The buffers keep their dtype when the network around them
    is cast to half precision; only the device follows. ValueError when a scale is not positive and finite.
    """

    mean: Float[Tensor, "k dim"]
    scale: Float[Tensor, "k dim"]
    count: Int[Tensor, "k"]
    factor: Float[Tensor, "k dim rank"] | None
    cholesky: Float[Tensor, "k dim dim"] | None
    directions: dict[tuple[int, float], Float[Tensor, "k dim"]]
    """Cache of the clusters' mean directions, by number of draws and scale; see `corgi.diffusion.choice.mean_direction`."""
    _relative: Float[Tensor, "k dim rank"]
    _forward: Float[Tensor, "k dim rank"]
    _inverse: Float[Tensor, "k dim rank"]

    def __init__(
        self,
        mean: Float[Tensor, "k dim"],
        scale: Float[Tensor, "k dim"],
        factor: Float[Tensor, "k dim rank"] | None = None,
        cholesky: Float[Tensor, "k dim dim"] | None = None,
        count: Int[Tensor, "k"] | None = None,
    ) -> None:
        """Check and store the parameters; `scale` is ignored by the full form but must be given."""
        super().__init__()
        if factor is not None and cholesky is not None:
            raise ValueError("a shift table is low rank or full, not both")
        _check_table(mean, scale, factor, cholesky)
        count = torch.zeros(len(mean), dtype=torch.int64, device=mean.device) if count is None else count
        tensors = {"mean": mean, "scale": scale, "factor": factor, "cholesky": cholesky, "count": count}
        for name, value in tensors.items():
            self.register_buffer(name, None if value is None else value.detach().clone())
        self._prepare_low_rank()
        self.directions = {}
        self.register_load_state_dict_post_hook(_after_load)

    @classmethod
    def snapshot(
        cls, mean: Float[Tensor, "k dim"], scale: Float[Tensor, "k dim"], count: Int[Tensor, "k"]
    ) -> "ShiftTable":
        """Build a diagonal table without checks or copies, from values known to be finite: a check in every step would make the host wait for the GPU."""
        table = cls.__new__(cls)
        nn.Module.__init__(table)
        table.directions = {}
        tensors = {"mean": mean, "scale": scale, "factor": None, "cholesky": None, "count": count}
        for name, value in tensors.items():
            table.register_buffer(name, value)
        return table

    @classmethod
    def ddpm(cls, dim: int, dtype: torch.dtype = torch.float32) -> "ShiftTable":
        """Ordinary diffusion: (0, I)."""
        return cls(torch.zeros(1, dim, dtype=dtype), torch.ones(1, dim, dtype=dtype))

    @classmethod
    def dalle2(cls, dim: int, dtype: torch.dtype = torch.float32) -> "ShiftTable":
        """DALL-E 2 style for unit-norm data: (0, I/d), the same as scaling the data by sqrt(d)."""
        return cls(torch.zeros(1, dim, dtype=dtype), torch.full((1, dim), dim**-0.5, dtype=dtype))

    @classmethod
    def standardised(
        cls, mean: Float[Tensor, "dim"], std: Float[Tensor, "dim"], floor: float = 1e-3
    ) -> "ShiftTable":
        """Global standardisation: (mu_g, diag sigma_g^2), the minimal shift, which serves as the control."""
        return cls.clusters(mean[None], std[None], floor=floor)

    @classmethod
    def clusters(
        cls,
        mean: Float[Tensor, "k dim"],
        scale: Float[Tensor, "k dim"],
        c: float = 1.0,
        floor: float = 1e-3,
        count: Int[Tensor, "k"] | None = None,
    ) -> "ShiftTable":
        """Corgi: one (mu_k, diag (c std_k)^2) per cluster; `floor` times the median std is the smallest std, for dead dimensions."""
        return cls(mean, c * scale.clamp(min=floor * float(scale.median())), count=count)

    @classmethod
    def from_covariance(
        cls, mean: Float[Tensor, "k dim"], covariance: Float[Tensor, "k dim dim"]
    ) -> "ShiftTable":
        """Build the full form from positive definite covariances (for k = 1 and for tests)."""
        scale = torch.diagonal(covariance, dim1=-2, dim2=-1).sqrt()
        return cls(mean, scale, cholesky=torch.linalg.cholesky(covariance))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "ShiftTable":
        """Rebuild a table from its state dict or from the tensors of a shift file; all checks apply."""
        optional = {name: state.get(name) for name in ("factor", "cholesky", "count")}
        return cls(state["mean"], state["scale"], **optional)

    @property
    def num_clusters(self) -> int:
        """Number of clusters k."""
        return self.mean.shape[0]

    @property
    def dim(self) -> int:
        """Dimension d of the embeddings."""
        return self.mean.shape[1]

    def centre(self, cluster: Int[Tensor, "batch"], like: Tensor) -> Float[Tensor, "batch dim"]:
        """Mu of each sample's cluster, in the dtype of `like`."""
        return self.mean[cluster].to(like.dtype)

    def apply_L(
        self, eps: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """L eps, with L L^T = Sigma of each sample's cluster."""
        if self.cholesky is not None:
            return torch.einsum("bij,bj->bi", self.cholesky[cluster].to(eps.dtype), eps)
        scaled = self.scale[cluster].to(eps.dtype) * eps
        if self.factor is None:
            return scaled
        inner = torch.einsum("bdr,bd->br", self._relative[cluster].to(eps.dtype), eps)
        return scaled + torch.einsum("bdr,br->bd", self._forward[cluster].to(eps.dtype), inner)

    def solve_L(
        self, delta: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """L^-1 delta by a triangular solve or a division; the samplers never call it."""
        if self.cholesky is not None:
            factor = self.cholesky[cluster].to(delta.dtype)
            return torch.linalg.solve_triangular(factor, delta[..., None], upper=False)[..., 0]
        scaled = delta / self.scale[cluster].to(delta.dtype)
        if self.factor is None:
            return scaled
        inner = torch.einsum("bdr,bd->br", self._relative[cluster].to(delta.dtype), scaled)
        return scaled - torch.einsum("bdr,br->bd", self._inverse[cluster].to(delta.dtype), inner)

    def whiten(
        self, z: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """X = L^-1 (z - mu) (eq. 10)."""
        return self.solve_L(z - self.centre(cluster, z), cluster)

    def unwhiten(
        self, x: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """Z = mu + L x (eq. 10)."""
        return self.centre(cluster, x) + self.apply_L(x, cluster)

    def refresh(self) -> None:
        """Check the buffers and derive the low-rank root again, after they were set by other means than load_state_dict."""
        _check_table(self.mean, self.scale, self.factor, self.cholesky)
        self._prepare_low_rank()
        self.directions.clear()

    def _prepare_low_rank(self) -> None:
        """Precompute the rank-r square root.

        With G = F / scale and S = sqrt(I + G^T G):
        L = diag(scale) (I + G (S+I)^-1 G^T),  L^-1 = (I - G (S^2+S)^-1 G^T) diag(scale)^-1.
        """
        if self.factor is None:
            return
        relative = self.factor.double() / self.scale.double()[..., None]
        values, vectors = torch.linalg.eigh(relative.mT @ relative)
        root = torch.sqrt(1 + values.clamp(min=0))[:, None, :]
        forward = self.factor.double() @ (vectors / (root + 1)) @ vectors.mT
        inverse = relative @ (vectors / (root * (root + 1))) @ vectors.mT
        for name, value in (("_relative", relative), ("_forward", forward), ("_inverse", inverse)):
            self.register_buffer(name, value.to(self.factor.dtype), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ShiftTable":
        """Follow device moves only: a bf16 cast of the network would store mu with 8 bits."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        self.directions.clear()
        return super()._apply(move, recurse)


def _after_load(table: ShiftTable, _: object) -> None:
    """Check loaded tensors like constructed ones and derive the low-rank root from them."""
    table.refresh()


def _check_table(mean: Tensor, scale: Tensor, factor: Tensor | None, cholesky: Tensor | None) -> None:
    """Raise ValueError for a table whose samples would have no spread or be NaN."""
    if mean.ndim != 2 or scale.shape != mean.shape:
        raise ValueError(
            f"mean and scale must both be [k, d], got {list(mean.shape)} and {list(scale.shape)}"
        )
    if factor is not None and (factor.ndim != 3 or factor.shape[:2] != mean.shape):
        raise ValueError(f"factor must be [k, d, r], got {list(factor.shape)}")
    if cholesky is not None and cholesky.shape != (*mean.shape, mean.shape[1]):
        raise ValueError(f"cholesky must be [k, d, d], got {list(cholesky.shape)}")
    if mean.is_meta:
        return
    if not all(
        bool(value.isfinite().all()) for value in (mean, scale, factor, cholesky) if value is not None
    ):
        raise ValueError("the shift table holds NaN or infinite values")
    diagonal = scale if cholesky is None else torch.diagonal(cholesky, dim1=-2, dim2=-1)
    if not bool((diagonal > 0).all()):
        raise ValueError("every scale of the shift table must be > 0: apply a floor to dead dimensions")


class Gaussian(NamedTuple):
    """N(mean, variance * Sigma), Sigma being that of each sample's cluster."""

    mean: Float[Tensor, "batch dim"]
    variance: Float[Tensor, "batch"]


def column(
    table: Float[Tensor, "length"], t: Int[Tensor, "batch"], like: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch 1"]:
    """Read a float64 table at t as a column in the dtype of `like`."""
    return table.to(t.device)[t].to(like.dtype)[:, None]


@dataclass(frozen=True, eq=False)
class ShiftedDiffusion:
    """The process of one table and one schedule.

    Every method takes `cluster`, one index per sample, the same along the whole chain; t and s are timesteps of
    `schedule`, one per sample.
    """

    table: ShiftTable
    schedule: Schedule

    def to(self, device: torch.device | str) -> "ShiftedDiffusion":
        """Return the process on that device; the table itself is moved."""
        return type(self)(self.table.to(device), self.schedule.to(device))

    def transition(
        self, z_prev: Float[Tensor, "batch dim"], t: Int[Tensor, "batch"], cluster: Int[Tensor, "batch"]
    ) -> Gaussian:
        """q(z_t | z_{t-1}) = N( z_{t-1} + s_t/mu (mu - z_{t-1}) , beta_t Sigma ) (eq. 1).

        The mean is sqrt(alpha_t) z_{t-1} + s_t with s_t = (1 - sqrt(alpha_t)) mu.
        """
        mu = self.table.centre(cluster, z_prev)
        mean = z_prev + column(self.schedule.shift, t, z_prev) * (mu - z_prev)
        return Gaussian(mean, column(self.schedule.betas, t, z_prev)[:, 0])

    def marginal(
        self, z_0: Float[Tensor, "batch dim"], t: Int[Tensor, "batch"], cluster: Int[Tensor, "batch"]
    ) -> Gaussian:
        """q(z_t | z_0) = N( mu + sqrt(abar_t)(z_0 - mu) , (1 - abar_t) Sigma ) (eq. 2)."""
        mu = self.table.centre(cluster, z_0)
        mean = z_0 + column(self.schedule.pull, t, z_0) * (mu - z_0)
        return Gaussian(mean, column(self.schedule.one_minus_alpha_bar, t, z_0)[:, 0])

    def q_sample(
        self,
        z_0: Float[Tensor, "batch dim"],
        t: Int[Tensor, "batch"],
        eps: Float[Tensor, "batch dim"],
        cluster: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch dim"]:
        """z_t = mu + sqrt(abar_t)(z_0 - mu) + sqrt(1-abar_t) L eps (eq. 3)."""
        return self.draw(self.marginal(z_0, t, cluster), eps, cluster)

    def start(
        self, eps: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """z_T = mu + L eps, a draw of p(z_T) = N(mu, Sigma)."""
        return self.table.unwhiten(eps, cluster)

    def posterior(
        self,
        z_0: Float[Tensor, "batch dim"],
        z_t: Float[Tensor, "batch dim"],
        t: Int[Tensor, "batch"],
        s: Int[Tensor, "batch"],
        cluster: Int[Tensor, "batch"],
    ) -> Gaussian:
        """q(z_s | z_t, z_0) = N( mu + c1 (z_0 - mu) + c2 (z_t - mu) , btilde Sigma ) (eq. 4), 0 <= s < t."""
        jump, mu = self.schedule.jump(t, s), self.table.centre(cluster, z_t)
        c1, c2 = jump.c1.to(z_t.dtype)[:, None], jump.c2.to(z_t.dtype)[:, None]
        return Gaussian(mu + c1 * (z_0 - mu) + c2 * (z_t - mu), jump.posterior_variance.to(z_t.dtype))

    def scaled_noise(
        self,
        z_0: Float[Tensor, "batch dim"],
        z_t: Float[Tensor, "batch dim"],
        t: Int[Tensor, "batch"],
        cluster: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch dim"]:
        """L eps = (z_t - mu - sqrt(abar_t)(z_0 - mu)) / sqrt(1-abar_t) (eq. 7), t >= 1."""
        residual = z_t - self.marginal(z_0, t, cluster).mean
        return residual / column(self.schedule.one_minus_alpha_bar, t, z_t).sqrt()

    def draw(
        self, gaussian: Gaussian, eps: Float[Tensor, "batch dim"], cluster: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch dim"]:
        """Mean + sqrt(variance) L eps."""
        return gaussian.mean + gaussian.variance.sqrt()[:, None] * self.table.apply_L(eps, cluster)


def choose_cluster(text: Float[Tensor, "batch dim"], mean: Float[Tensor, "k dim"]) -> Int[Tensor, "batch"]:
    """kappa(y) = argmax_i cos(mu_i, y), the lowest index on ties (eq. 11).

    A row with NaN gets the last cluster: `check_finite` rejects such rows, but makes the host wait for a GPU.
    """
    return first_largest(F.normalize(text.double(), dim=-1) @ F.normalize(mean.double(), dim=-1).mT)


def check_finite(text: Float[Tensor, "batch dim"]) -> None:
    """Raise ValueError if text embeddings have NaN or infinite values, for which no cluster can be chosen."""
    if not bool(text.isfinite().all()):
        raise ValueError("text embeddings hold NaN or infinite values")


def first_largest(score: Float[Tensor, "batch n"]) -> Int[Tensor, "batch"]:
    """Index of the largest score of each row; the lowest index among scores equal within `COSINE_TIE`, the last for NaN."""
    last = score.shape[1] - 1
    index = torch.arange(last + 1, device=score.device).expand_as(score)
    best = score >= score.amax(dim=1, keepdim=True) - COSINE_TIE
    return index.masked_fill(~best, last).amin(dim=1)
