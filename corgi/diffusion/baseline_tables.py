"""(mu, Sigma) of every baseline prior, computed from the statistics of an embedding space."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from corgi.baselines import TableName
from corgi.diffusion.shifted import ShiftTable


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of k clusters, as measured; with a `factor`, `scale` is only the remaining diagonal part."""

    mean: Float[Tensor, "k dim"]
    scale: Float[Tensor, "k dim"]
    count: Int[Tensor, "k"] | None = None
    factor: Float[Tensor, "k dim rank"] | None = None
    cholesky: Float[Tensor, "k dim dim"] | None = None

    @property
    def dim(self) -> int:
        """Return the dimension d of the space."""
        return self.mean.shape[1]


@dataclass(frozen=True)
class SpaceMoments:
    """The moments of a space: those of all its rows, and those of its clusters."""

    whole: Moments
    clusters: Moments


def with_factor(moments: Moments, c: float) -> ShiftTable:
    """Return (mu_k, c^2 Sigma_k)."""
    if moments.factor is None and moments.cholesky is None:
        return ShiftTable.clusters(moments.mean, moments.scale, c, count=moments.count)
    factor, cholesky = (None if root is None else c * root for root in (moments.factor, moments.cholesky))
    return ShiftTable(moments.mean, c * moments.scale, factor, cholesky, moments.count)


TABLES: Mapping[TableName, Callable[[SpaceMoments, float], ShiftTable]] = {
    "ddpm": lambda space, _: ShiftTable.ddpm(space.whole.dim),
    "dalle2": lambda space, _: ShiftTable.dalle2(space.whole.dim),
    "global": lambda space, c: with_factor(space.whole, c),
    "clusters": lambda space, c: with_factor(space.clusters, c),
    "low_rank": lambda space, c: with_factor(space.clusters, c),  # its moments include the root
}
"""Functions that compute a baseline's (mu, Sigma) from a space's moments and c."""
