"""The shift parameters (mu_k, Sigma_k) from moments, and the measures by which they are judged."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# numpy and scipy have functions without types

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from corgi.diffusion.shifted import check_finite, choose_cluster
from corgi.statistics.clusters import nearest
from corgi.statistics.low_rank import shrinkage_weight
from corgi.statistics.moments import Moments, cluster_moments, pooled
from corgi.unit_vectors import unit_rows

RIDGE_SHARE = 1e-3
"""Ridge of the regression on captions, as a share of the captions' mean variance per dimension."""


@dataclass(frozen=True)
class ShiftParameters:
    """Mean and covariance of each cluster, mean and standard deviation of all rows; without the factor c.

    Sigma_k is diag(scale_k^2), plus F_k F_k^T if there is a `factor`. If there is a `cholesky` (k = 1), Sigma is L L^T,
    and scale^2 is its diagonal.
    """

    mean: Float[np.ndarray, "k dim"]
    scale: Float[np.ndarray, "k dim"]
    count: Int[np.ndarray, "k"]
    global_mean: Float[np.ndarray, "dim"]
    global_scale: Float[np.ndarray, "dim"]
    factor: Float[np.ndarray, "k dim rank"] | None = None
    cholesky: Float[np.ndarray, "k dim dim"] | None = None

    @property
    def variance(self) -> Float[np.ndarray, "k dim"]:
        """Return the diagonal of each Sigma_k."""
        own = self.scale**2
        return own if self.factor is None else own + (self.factor.astype(np.float64) ** 2).sum(axis=2)


def shift_parameters(clusters: Moments, shrinkage_count: float, floor_share: float) -> ShiftParameters:
    """Shrink each cluster's variance towards the global one and floor it.

    var_k <- (n_k var_k + n_0 var_g) / (n_k + n_0), at least `floor_share` of the median of var_g; an empty
    cluster takes the global mean and variance.

    Raises:
        ValueError: there are no rows, or the parameters are not finite and positive.

    """
    whole = pooled(clusters)
    if not whole.count:
        raise ValueError("no rows to take statistics of")
    floor = floor_share * np.median(whole.variance)
    count = clusters.count[:, None]
    weight = shrinkage_weight(count, shrinkage_count)
    variance = np.maximum(weight * clusters.variance + (1 - weight) * whole.variance, floor)
    mean = np.where(count > 0, clusters.mean, whole.mean)
    parameters = ShiftParameters(
        mean, np.sqrt(variance), clusters.count, whole.mean, np.sqrt(np.maximum(whole.variance, floor))
    )
    for values in (parameters.mean, parameters.scale, parameters.global_mean, parameters.global_scale):
        if not np.isfinite(values).all():
            raise ValueError("the shift parameters hold NaN or infinite values")
    if not (parameters.scale > 0).all():
        raise ValueError("all rows are equal: no scale can be taken from them")
    return parameters


def choice_accuracy(
    text: Float[np.ndarray, "n dim"], picture_cluster: Int[np.ndarray, "n"], mean: Float[np.ndarray, "k dim"]
) -> float | None:
    """Return the share of captions whose cluster (largest cosine to mu_k) is their picture's; None without rows."""
    if not len(text):
        return None
    captions = torch.from_numpy(np.asarray(text, np.float64))
    check_finite(captions)
    chosen = choose_cluster(captions, torch.from_numpy(np.asarray(mean, np.float64)))
    return float((chosen.numpy() == picture_cluster).mean())


def expected_directions(
    shift: ShiftParameters, num_draws: int = 256, seed: int = 0
) -> Float[np.ndarray, "k dim"]:
    """Return E[z / |z|] under N(mu_k, Sigma_k) by antithetic draws: the expected cosine to y is its product with y / |y|.

    Its length is below 1 and smaller for wider clusters; the cosine to mu_k does not take this width into account.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    k, dim = shift.mean.shape
    directions = np.empty((k, dim))
    for cluster in range(k):
        noise = generator.normal(size=(num_draws // 2, dim))
        moved = noise * shift.scale[cluster] if shift.cholesky is None else noise @ shift.cholesky[cluster].T
        if shift.factor is not None:
            rank = shift.factor.shape[2]
            moved = moved + generator.normal(size=(len(moved), rank)) @ shift.factor[cluster].T
        drawn = np.concatenate([shift.mean[cluster] + moved, shift.mean[cluster] - moved])
        directions[cluster] = unit_rows(drawn).mean(axis=0)
    return directions


def expected_choice_accuracy(
    text: Float[np.ndarray, "n dim"],
    picture_cluster: Int[np.ndarray, "n"],
    directions: Float[np.ndarray, "k dim"],
) -> float | None:
    """Return the share of captions whose cluster of largest expected cosine is their picture's; None without rows."""
    if not len(text):
        return None
    chosen = (np.asarray(text, np.float64) @ directions.T).argmax(axis=1)
    return float((chosen == picture_cluster).mean())


def choice_by_clusters(
    rows: Float[np.ndarray, "n dim"],
    centroids: Float[np.ndarray, "k dim"],
    pairs: tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m dim"]],
    shrinkage_count: float,
    floor_share: float,
) -> dict[str, float | None]:
    """Return how often a caption chooses its picture's cluster, with these centroids and the means of these rows.

    `pairs` are (picture, caption) vectors that were not used in the fit; `chance` is the score of the best constant choice.
    """
    pictures, text = pairs
    moments = cluster_moments(rows, nearest(rows, centroids)[0], len(centroids))
    shift = shift_parameters(moments, shrinkage_count, floor_share)
    own, _ = nearest(pictures, shift.mean)
    return {
        "cosine": choice_accuracy(text, own, shift.mean),
        "expected_cosine": expected_choice_accuracy(text, own, expected_directions(shift)),
        "chance": float(np.bincount(own).max() / len(own)) if len(own) else None,
    }


def matched_scale(
    rows: Float[np.ndarray, "n dim"], caption: Int[np.ndarray, "n"], cluster_scale: Float[np.ndarray, "n dim"]
) -> float | None:
    """Return the c that matches the start distribution to the data: the spread given the caption divided by the cluster spread.

    `caption` labels rows that share a caption, `cluster_scale` is each row's sigma_k. Variances are unbiased and
    pooled over captions with at least two rows; None if there is no such caption.
    """
    within = freedom = expected = 0.0
    for value in np.flatnonzero(np.bincount(caption) > 1) if len(caption) else ():
        chosen = caption == value
        part = Moments.of(rows[chosen].astype(np.float64))
        within += float(part.second.sum())
        freedom += float(part.count) - 1
        expected += float((cluster_scale[chosen] ** 2).sum(axis=1).mean()) * (float(part.count) - 1)
    return float(np.sqrt(within / expected)) if freedom and expected else None


def regression_scale(
    train: tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, "n text"]],
    held_out: tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m text"]],
    cluster_scale: Float[np.ndarray, "m dim"],
) -> float | None:
    """Return an upper bound of the matched c where no caption is shared, from the residual of a linear map of the caption.

    A ridge regression picture ~ caption is fitted on `train` (pictures, captions); its squared error on `held_out`,
    divided by the cluster variance, is an upper bound of c^2, since a better predictor would leave less. None without held-out rows, or
    unless there are more train rows than a caption has dimensions.
    """
    pictures, text = (np.asarray(values, np.float64) for values in train)
    if len(text) <= text.shape[1] or not len(held_out[0]):
        return None
    picture_mean, text_mean = pictures.mean(axis=0), text.mean(axis=0)
    centred = text - text_mean
    gram = centred.T @ centred
    ridge = RIDGE_SHARE * float(np.trace(gram)) / len(gram)
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), centred.T @ (pictures - picture_mean))
    residual = held_out[0] - picture_mean - (held_out[1] - text_mean) @ weights
    return float(np.sqrt((residual**2).sum() / (cluster_scale.astype(np.float64) ** 2).sum()))


def spectrum(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "dim"]:
    """Return the eigenvalues of the rows' covariance, largest first."""
    return np.linalg.eigvalsh(Moments.of(rows.astype(np.float64), full=True).variance)[::-1]
