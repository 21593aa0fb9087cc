"""Count, mean and second moments in float64, merged by Chan's formula: exact over any number of shards."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Moments:
    """Moments of one set of rows, or stacked moments of k sets; all arrays but the counts are float64.

    `second` sums the squared deviations from the mean: [..., dim] diagonal, or [dim, dim] for one set in full.
    """

    count: Int[np.ndarray, "*sets"]
    mean: Float[np.ndarray, "*sets dim"]
    second: Float[np.ndarray, "*sets dim"] | Float[np.ndarray, "dim dim"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "n dim"], full: bool = False) -> "Moments":
        """Return the moments of one set of rows; `full` keeps the whole [dim, dim] second moment."""
        mean = rows.mean(axis=0, dtype=np.float64) if len(rows) else np.zeros(rows.shape[1])
        centred = rows - mean
        second = centred.T @ centred if full else np.einsum("nd,nd->d", centred, centred)
        return cls(np.asarray(len(rows), np.int64), mean, second)

    @property
    def is_full(self) -> bool:
        """Return whether `second` is the full [dim, dim] matrix."""
        return self.second.ndim == self.mean.ndim + 1

    @property
    def variance(self) -> np.ndarray:
        """Return second / count, shaped as `second`: the population variance; zero where a set is empty.

        With unit vectors its trace plus |mean|^2 is 1.
        """
        count = np.maximum(self.count, 1).astype(np.float64)
        return self.second / count.reshape(count.shape + (1,) * (self.second.ndim - count.ndim))

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows together (Chan, Golub & LeVeque 1979)."""
        count = np.asarray(self.count + other.count)
        delta = other.mean - self.mean
        share = (other.count / np.maximum(count, 1))[..., None]
        weight = (self.count * share[..., 0])[..., None]
        between = delta[:, None] * delta[None, :] if self.is_full else delta * delta
        return type(self)(count, self.mean + delta * share, self.second + other.second + between * weight)


def cluster_moments(
    rows: Float[np.ndarray, "n dim"], cluster: Int[np.ndarray, "n"], num_clusters: int
) -> Moments:
    """Return the diagonal moments of each cluster's rows; an empty cluster has count 0, mean 0."""
    total = empty_moments((num_clusters,), rows.shape[1])
    order = np.argsort(cluster, kind="stable")
    count = np.bincount(cluster, minlength=num_clusters)
    ends = np.cumsum(count)
    for k in np.flatnonzero(count):
        one = Moments.of(rows[order[ends[k] - count[k] : ends[k]]])
        total.count[k], total.mean[k], total.second[k] = one.count, one.mean, one.second
    return total


def empty_moments(sets: tuple[int, ...], dim: int, full: bool = False) -> Moments:
    """Return the moments of no rows: the neutral element of `merge`."""
    shape = (*sets, dim, dim) if full else (*sets, dim)
    return Moments(np.zeros(sets, np.int64), np.zeros((*sets, dim)), np.zeros(shape))


def merged(parts: Iterable[Moments]) -> Moments:
    """Merge in the order given: the same order gives the same bits; another order agrees up to rounding."""
    return reduce(Moments.merge, parts)


def pooled(clusters: Moments) -> Moments:
    """Return the diagonal moments of all clusters' rows together."""
    return merged(
        Moments(np.asarray(clusters.count[k]), clusters.mean[k], clusters.second[k])
        for k in range(len(clusters.count))
    )
