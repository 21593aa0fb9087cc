"""Kernel distances between two sets, as defined in the literature: KID and CMMD."""

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "rows dim"]
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
KID_SUBSETS, KID_SUBSET_ROWS, KID_SEED = 100, 1000, 2020
"""torch-fidelity's defaults: number of subsets, rows per subset, and the seed with which they are drawn."""


def cmmd(a: Rows, b: Rows, sigma: float = CMMD_SIGMA) -> float:
    """Return 1000 (mean k(a, a) + mean k(b, b) - 2 mean k(a, b)), k = exp(-|x - y|^2 / (2 sigma^2)) (Jayasumana et al. 2024).

    The means are over all pairs, including a row with itself, so it is biased upward for few rows. It depends on the scale of the
    features: report their network and sigma with it.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: Rows, y: Rows) -> float:
        square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
        return float(np.exp(-square.clip(0) / (2 * sigma**2)).mean())

    return CMMD_SCALE * (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))


def polynomial_mmd(a: Rows, b: Rows) -> float:
    """Return the unbiased squared MMD of equally many rows under k(x, y) = (x y / d + 1)^3 (Binkowski et al. 2018)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    dim, rows = a.shape[1], len(a)
    own = [(x @ x.T / dim + 1) ** 3 for x in (a, b)]
    within = sum(kernel.sum() - np.trace(kernel) for kernel in own) / (rows * (rows - 1))
    return float(within - 2 * ((a @ b.T / dim + 1) ** 3).mean())


def kernel_inception_distance(
    a: Rows, b: Rows, subsets: int = KID_SUBSETS, subset_rows: int = KID_SUBSET_ROWS
) -> tuple[float, float]:
    """Return mean and standard deviation of `polynomial_mmd` over random subsets, drawn as torch-fidelity draws them.

    Sets smaller than `subset_rows` make smaller subsets: report the rows per subset with the figure.
    """
    rows = min(subset_rows, len(a), len(b))
    draws = np.random.RandomState(KID_SEED)
    distances = [
        polynomial_mmd(
            a[draws.choice(len(a), rows, replace=False)], b[draws.choice(len(b), rows, replace=False)]
        )
        for _ in range(subsets)
    ]
    return float(np.mean(distances)), float(np.std(distances))
