"""Low rank plus diagonal covariances, from sketches that merge as exactly as moments do.

A set's sketch is its centred second moment times one fixed basis, S = sum (x - mean)(x - mean)^T B with B [dim, width]
orthonormal. It is linear in the second moment, so shards merge by Chan's formula, and k sets need k * dim * width numbers
where k full matrices would need k * dim^2. The leading eigenpairs are recovered by Nystroem's formula (Tropp et al. 2017).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from corgi.statistics.moments import Moments

_LEAST_SHARE = 0.1
"""Eigenvalues below this share of the rank-th largest are dropped: they are noise, which would be amplified."""
_ROUNDS = 4


@dataclass(frozen=True)
class Sketches:
    """Stacked sketches of k sets, float64; those of a set without rows are zeros."""

    count: Int[np.ndarray, "k"]
    mean: Float[np.ndarray, "k dim"]
    sketch: Float[np.ndarray, "k dim width"]

    @classmethod
    def of(
        cls,
        rows: Float[np.ndarray, "n dim"],
        cluster: Int[np.ndarray, "n"],
        clusters: range,
        basis: Float[np.ndarray, "dim width"],
    ) -> "Sketches":
        """Return the sketches of the rows of some clusters, one per cluster of the range."""
        dim, width = basis.shape
        sketches = cls.empty(len(clusters), dim, width)
        for row, k in enumerate(clusters):
            members = rows[cluster == k].astype(np.float64)
            if len(members):
                mean = members.mean(axis=0)
                centred = members - mean
                sketches.count[row], sketches.mean[row] = len(members), mean
                sketches.sketch[row] = centred.T @ (centred @ basis)
        return sketches

    @classmethod
    def empty(cls, num_sets: int, dim: int, width: int) -> "Sketches":
        """Return the sketches of no rows: the neutral element of `merge`."""
        return cls(np.zeros(num_sets, np.int64), np.zeros((num_sets, dim)), np.zeros((num_sets, dim, width)))

    def merge(self, other: "Sketches", basis: Float[np.ndarray, "dim width"]) -> "Sketches":
        """Return the sketches of both sets of rows together (Chan's formula times the basis)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        delta = other.mean - self.mean
        sketch = self.sketch + other.sketch
        sketch += (delta * (self.count * share)[:, None])[:, :, None] * (delta @ basis)[:, None, :]
        return type(self)(count, self.mean + delta * share[:, None], sketch)


def sketch_width(dim: int, rank: int) -> int:
    """Return how many columns a basis needs for a rank: the rank and a quarter of it, or 8, whichever is more; at most `dim`."""
    return min(dim, rank + max(8, rank // 4))


def sketch_basis(dim: int, width: int, seed: int) -> Float[np.ndarray, "dim width"]:
    """Return a random orthonormal basis, the same for the same seed; the identity if it spans the whole space."""
    if width >= dim:
        return np.eye(dim)
    drawn = np.random.Generator(np.random.Philox(seed)).normal(size=(dim, width))
    q, r = np.linalg.qr(drawn)
    return q * np.sign(np.diagonal(r))


def low_rank_factor(
    sketch: Float[np.ndarray, "dim width"],
    variance: Float[np.ndarray, "dim"],
    basis: Float[np.ndarray, "dim width"],
    rank: int,
    floor: float,
) -> tuple[Float[np.ndarray, "dim rank"], Float[np.ndarray, "dim"]]:
    """Return (F, scale) with F F^T + diag(scale^2) close to a covariance whose sketch is Sigma B.

    As in probabilistic PCA, F contains the leading eigenvectors times sqrt(lambda - sigma^2), sigma^2 being the mean of the
    other eigenvalues; the diagonal makes up the rest, so that the diagonal of the sum is `variance` wherever the floor
    (a variance) does not raise it.
    """
    rest, above = 0.0, np.zeros(rank)
    vectors = np.zeros((len(variance), rank))
    for _ in range(_ROUNDS):
        # Without its isotropic part the covariance is nearly of low rank, and then its sketch is nearly exact.
        above, vectors = _leading(sketch - rest * basis, basis, rank)
        values = above + rest
        rest = max(0.0, float(variance.sum() - values.sum())) / max(1, len(variance) - rank)
        above = np.maximum(values - rest, 0.0)
    factor = vectors * np.sqrt(above)
    factor = factor * np.where(factor[np.abs(factor).argmax(axis=0), np.arange(rank)] < 0, -1.0, 1.0)
    return factor, np.sqrt(np.maximum(variance - (factor**2).sum(axis=1), floor))


def shrunk_sketches(
    clusters: Sketches, whole: Sketches, shrinkage_count: float
) -> Float[np.ndarray, "k dim width"]:
    """Return each cluster's Sigma B shrunk towards the global one, as its variance is; an empty cluster gets the global one."""
    general = whole.sketch[0] / max(1, int(whole.count[0]))
    weight = shrinkage_weight(clusters.count, shrinkage_count)[:, None, None]
    own = clusters.sketch / np.maximum(clusters.count, 1)[:, None, None]
    return weight * own + (1 - weight) * general


def shrinkage_weight(count: Int[np.ndarray, "*sets"], shrinkage_count: float) -> Float[np.ndarray, "*sets"]:
    """Return n_k / (n_k + n_0), 0 for an empty cluster."""
    total = count + shrinkage_count
    return np.where(count > 0, count / np.where(total > 0, total, 1.0), 0.0)


def full_root(
    moments: Moments, shrinkage_count: float, floor_share: float
) -> tuple[Float[np.ndarray, "dim dim"], Float[np.ndarray, "dim"]]:
    """Return (L, scale) of one set's full covariance, L L^T = Sigma and scale^2 its diagonal.

    Off-diagonal entries are shrunk by n / (n + n_0); eigenvalues are at least `floor_share` of the median variance.
    """
    covariance = moments.variance * float(shrinkage_weight(moments.count[None], shrinkage_count)[0])
    variance = np.diagonal(moments.variance)
    np.fill_diagonal(covariance, variance)
    values, vectors = np.linalg.eigh(covariance)
    floored = (vectors * np.maximum(values, floor_share * np.median(variance))) @ vectors.T
    floored = (floored + floored.T) / 2
    return np.linalg.cholesky(floored), np.sqrt(np.diagonal(floored))


def _leading(
    sketch: Float[np.ndarray, "dim width"], basis: Float[np.ndarray, "dim width"], rank: int
) -> tuple[Float[np.ndarray, "rank"], Float[np.ndarray, "dim rank"]]:
    """Return the largest eigenvalues of the sketched matrix, in descending order, and their eigenvectors."""
    dim, width = basis.shape
    if width >= dim:
        values, vectors = np.linalg.eigh((sketch + sketch.T) / 2)
        return np.maximum(values[::-1][:rank], 0.0), vectors[:, ::-1][:, :rank]
    inner = basis.T @ sketch
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    kept = values > max(_LEAST_SHARE * values[-rank], np.finfo(np.float64).eps * np.linalg.norm(sketch))
    root = np.zeros((dim, rank))
    if kept.any():
        wide = sketch @ (vectors[:, kept] / np.sqrt(values[kept]))
        left, singular, _ = np.linalg.svd(wide, full_matrices=False)
        number = min(rank, int(kept.sum()))
        root[:, :number] = left[:, :number]
        return np.pad(singular[:number] ** 2, (0, rank - number)), root
    return np.zeros(rank), root
