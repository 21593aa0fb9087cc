"""The Frechet distance between two sets of vectors, each treated as a normal distribution."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# numpy has functions without types

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "_ dim"]


def frechet_distance(a: Vectors, b: Vectors) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2), float64.

    It is biased upward for few rows: compare it with the same measure between two sets of true vectors of the same sizes.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    root_a, root_b = _root(a), _root(b)
    # With S = R^T R the last trace is the sum of the singular values of R_a R_b^T, a matrix with no more rows and columns than there are vectors.
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    own = np.square(root_a).sum() + np.square(root_b).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + own - 2 * cross)


def _root(rows: Vectors) -> Float[np.ndarray, "_ dim"]:
    """Return R with R^T R the covariance of the rows; R has as many rows as there are rows or dimensions, whichever are fewer."""
    return np.linalg.qr(rows - rows.mean(0), mode="r") / np.sqrt(len(rows) - 1)
