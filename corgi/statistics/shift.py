"""The shift parameters (mu_k, diag sigma_k^2) from moments, and the references they are judged by."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from corgi.diffusion.shifted import choose_cluster
from corgi.statistics.moments import Moments, pooled


@dataclass(frozen=True)
class ShiftParameters:
    """Mean and standard deviation of each cluster and of all rows; float64, without the factor c."""

    mean: Float[np.ndarray, "k dim"]
    scale: Float[np.ndarray, "k dim"]
    count: Int[np.ndarray, "k"]
    global_mean: Float[np.ndarray, "dim"]
    global_scale: Float[np.ndarray, "dim"]
    factor: Float[np.ndarray, "k dim rank"] | None = None
    """With a factor F_k, Sigma_k = diag(scale_k^2) + F_k F_k^T; without, Sigma_k is diagonal."""


def shift_parameters(clusters: Moments, shrinkage_count: float, floor_share: float) -> ShiftParameters:
    """Shrink each cluster's variance towards the global one and floor it (docs/method.md, 1.5).

    var_k <- (n_k var_k + n_0 var_g) / (n_k + n_0), at least `floor_share` of the median of var_g; an empty
    cluster takes the global mean and variance.

    Raises:
        ValueError: there are no rows, or the parameters are not finite and positive.

    """
    whole = pooled(clusters)
    if not whole.count:
        raise ValueError("no rows to take statistics of")
    floor = floor_share * np.median(whole.variance)
    count = clusters.count[:, None].astype(np.float64)
    weight = np.where(count + shrinkage_count > 0, count / np.maximum(count + shrinkage_count, 1e-300), 0.0)
    variance = np.maximum(weight * clusters.variance + (1 - weight) * whole.variance, floor)
    mean = np.where(count > 0, clusters.mean, whole.mean)
    found = ShiftParameters(
        mean, np.sqrt(variance), clusters.count, whole.mean, np.sqrt(np.maximum(whole.variance, floor))
    )
    for values in (found.mean, found.scale, found.global_mean, found.global_scale):
        if not np.isfinite(values).all():
            raise ValueError("the shift parameters hold NaN or infinite values")
    if not (found.scale > 0).all():
        raise ValueError("all rows are equal: no scale can be taken from them")
    return found


def low_rank_parameters(
    shift: ShiftParameters,
    rows: Float[np.ndarray, "n dim"],
    cluster: Int[np.ndarray, "n"],
    rank: int,
    shrinkage_count: float,
    floor_share: float,
) -> ShiftParameters:
    """Return the parameters with Sigma_k = diag(scale_k^2) + F_k F_k^T, F_k the r largest principal directions.

    Each covariance is shrunk towards the global one like the variances. Its diagonal is kept exactly (up to the
    floor), its products between dimensions as far as r directions carry them.

    Raises:
        ValueError: the rank is not between 1 and dim - 1, or there are no rows.

    """
    dim = rows.shape[1]
    if not 1 <= rank < dim or not len(rows):
        raise ValueError(f"a low-rank covariance needs rows and a rank of 1 to {dim - 1}, got {rank}")
    whole = Moments.of(rows.astype(np.float64), full=True).variance
    floor = floor_share * np.median(np.diag(whole))
    scale, factor = np.empty_like(shift.scale), np.empty((*shift.scale.shape, rank))
    for k in range(len(shift.scale)):
        part = Moments.of(rows[cluster == k].astype(np.float64), full=True)
        weight = float(part.count) / max(float(part.count) + shrinkage_count, 1e-300)
        values, vectors = np.linalg.eigh(weight * part.variance + (1 - weight) * whole)
        factor[k] = vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:], 0))
        rest = (vectors[:, :-rank] ** 2) @ np.maximum(values[:-rank], 0)
        scale[k] = np.sqrt(np.maximum(rest, floor))
    return replace(shift, scale=scale, factor=factor)


def choice_accuracy(
    text: Float[np.ndarray, "n dim"], picture_cluster: Int[np.ndarray, "n"], mean: Float[np.ndarray, "k dim"]
) -> float | None:
    """Return the share of captions whose cluster (largest cosine to mu_k) is their picture's; None without rows."""
    if not len(text):
        return None
    chosen = choose_cluster(
        torch.from_numpy(np.asarray(text, np.float64)), torch.from_numpy(np.asarray(mean, np.float64))
    )
    return float((chosen.numpy() == picture_cluster).mean())


def two_sample_cosine(rows: Float[np.ndarray, "n dim"], label: Int[np.ndarray, "n"]) -> float | None:
    """Return the mean cosine of two different unit rows of one label, pairs weighted equally.

    It is the c of two honest samples of the same condition: a mean of samples scores sqrt(c) (docs/method.md,
    trap 6). None where no label has two rows.
    """
    total = pairs = 0.0
    for value in np.flatnonzero(np.bincount(label) > 1) if len(label) else ():
        members = rows[label == value].astype(np.float64)
        sums = members.sum(axis=0)
        total += float(sums @ sums - (members * members).sum())
        pairs += len(members) * (len(members) - 1)
    return total / pairs if pairs else None


def matched_scale(
    rows: Float[np.ndarray, "n dim"], caption: Int[np.ndarray, "n"], cluster_scale: Float[np.ndarray, "n dim"]
) -> float | None:
    """Return the c that matches the start distribution to the data: spread given the caption over cluster spread.

    `caption` labels rows that share a caption, `cluster_scale` is each row's sigma_k. Variances are unbiased and
    pooled over captions with at least two rows; None where there is none.
    """
    within = freedom = expected = 0.0
    for value in np.flatnonzero(np.bincount(caption) > 1) if len(caption) else ():
        chosen = caption == value
        part = Moments.of(rows[chosen].astype(np.float64))
        within += float(part.second.sum())
        freedom += float(part.count) - 1
        expected += float((cluster_scale[chosen] ** 2).sum(axis=1).mean()) * (float(part.count) - 1)
    return float(np.sqrt(within / expected)) if freedom and expected else None


def spectrum(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "dim"]:
    """Return the eigenvalues of the rows' covariance, largest first."""
    return np.linalg.eigvalsh(Moments.of(rows.astype(np.float64), full=True).variance)[::-1]
